"""Without Flower, or with another release of it, a federation says what to install."""

from importlib.util import find_spec

import pytest

from edgellm.cli.app import main
from edgellm.errors import BackendError
from edgellm.federation.flower import library


@pytest.mark.skipif(find_spec("flwr") is not None, reason="Flower is installed")
@pytest.mark.parametrize(
    "words",
    [
        ["server", "stories", "out", "--clients", "2", "--rounds", "1"],
        ["client", "stories", "data.jsonl", "--invitation", "client-1.invitation"],
    ],
)
def test_the_commands_say_how_flower_is_installed(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["federate", *words]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "federated learning needs Flower, which is not installed" in said
    assert "pip install --no-deps 'flwr==1.42.0'" in said
    assert not list(tmp_path.iterdir())


def test_another_release_is_refused(monkeypatch):
    library.require_flower.cache_clear()
    monkeypatch.setattr(library, "version", lambda name: "1.43.0")
    with pytest.raises(BackendError, match=r"written for Flower 1\.42, and 1\.43\.0 is installed"):
        library.require_flower()
    library.require_flower.cache_clear()
