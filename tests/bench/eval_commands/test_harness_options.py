"""Options for the harness' tasks: refused where they mean nothing, before anything is loaded."""

import sys

import pytest
from support.paths import ROOT
from typer.testing import CliRunner

from edgellm.bench.eval_app import app
from edgellm.errors import BackendError, ConfigError


def run(*arguments):
    """Run ``edgellm eval``, and raise what it raises."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--harness-path", str(ROOT)], "no task of lm-evaluation-harness"),
        (["--harness", " , ", "--like-harness"], "no task of lm-evaluation-harness"),
        (["--harness", "code", "--prompt", "{{ text }}"], "--prompt is for tasks of your own"),
        (["--harness", "code", "--decoding", "beam:4"], "--decoding is for tasks of your own"),
        (["--harness", "code", "--samples", "kept.jsonl"], "--samples is for tasks of your own"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run("stories", *arguments)
    assert "--harness" in caught.value.hint or "--task" in caught.value.hint


def test_without_the_library_nothing_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BackendError, match="not installed"):
        run("no-such-model", "--harness", "code")
