"""Paths that people give: what no system can look for is one clear error."""

import os

import pytest

from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path


def test_a_path_is_taken_whether_anything_is_there_or_not(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing", tmp_path / "file" / "below"):
        assert given_path(path) == path
        assert given_path(str(path)) == path
    assert given_path("~/file") == tmp_path / "file"


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("", "empty", "name"),
        ("a" * 300, "File name too long", "shorter"),
        ("a/" * 3000, "File name too long", "shorter"),
        ("a\0b", "null", "written"),
        ("~nobody-of-this-name/x", "home directory", "written"),
    ],
)
def test_what_can_be_no_path_is_refused_with_a_next_step(name, reason, hint):
    with pytest.raises(ConfigError, match=reason) as caught:
        given_path(name)
    assert hint in caught.value.hint
    assert len(caught.value.message) < 250


def test_links_that_lead_to_each_other_are_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    for path in (tmp_path / "one", tmp_path / "one" / "below"):
        with pytest.raises(ConfigError, match="symbolic links"):
            given_path(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_searched_is_refused(tmp_path):
    closed = tmp_path / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0)
    try:
        for path in (closed, closed / "below"):
            with pytest.raises(ConfigError, match="Permission denied"):
                given_path(path)
    finally:
        closed.chmod(0o700)
