"""A tiny model, and command lines that run in this process."""

import pytest
from support import tiny

import edgellm
from edgellm.cli.app import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model."""
    return str(
        tiny.write_model(tmp_path_factory.mktemp("models") / "tiny", tiny.CONFIGS["llama-3.2"])
    )


@pytest.fixture
def run(capsys):
    """Runs a command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture(scope="module")
def paging_budget(model):
    """The largest budget in which the model has to page with a context of 64 tokens."""
    with edgellm.load(model, context=64, prefill_chunk=32) as llm:
        return llm.plan.total_bytes - 1
