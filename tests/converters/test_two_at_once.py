"""Two that make one thing at the same time: one makes it whole, the other is told by whom."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support.folders import changed_files
from support.processes import all_started, started
from support.tiny import CONFIGS, write_model

from edgellm.converters import convert, export
from edgellm.converters.synthetic import synthesize
from edgellm.errors import ConversionError

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 2}

WORK = """
import sys
from edgellm.converters import convert, export
from edgellm.converters.synthetic import synthesize
def step(it):
    if it.file:
        print("at work", flush=True)
        sys.stdin.readline()
work = {"convert": convert, "export": export, "synth": synthesize}[sys.argv[1]]
work(sys.argv[2], sys.argv[3], progress=step)
"""
RACE = """
import sys
from edgellm.converters import convert
from edgellm.errors import ConversionError
print("ready", flush=True)
sys.stdin.readline()
try:
    convert(sys.argv[1], sys.argv[2])
except ConversionError as error:
    print(error.message)
else:
    print("made it")
"""
HERE = {"convert": convert, "export": export, "synth": synthesize}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny") / "source", LLAMA)


@contextmanager
def at_work(command, source, made):
    """A process that has begun to write, and waits."""
    words = [sys.executable, "-c", WORK, command, source, made]
    with started(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "at work\n"
        yield process


@pytest.mark.parametrize("command", ["convert", "export"])
def test_the_second_is_told_who_is_at_work_and_a_dead_one_stops_nobody(source, tmp_path, command):
    made = tmp_path / "made"
    with at_work(command, source, made) as process:
        for force in (False, True):
            with pytest.raises(ConversionError) as caught:
                HERE[command](source, made, force=force)
            said = rf"{made} is being written by edgellm {command} (process {process.pid}, since "
            assert caught.value.message.startswith(said)
            assert caught.value.hint
        process.send_signal(signal.SIGKILL)
        process.wait()
    HERE[command](source, made)
    assert {path.name for path in tmp_path.iterdir()} == {"made"}


def test_conversions_and_random_models_hold_one_lock(source, tmp_path):
    busy = pytest.raises(ConversionError, match="edgellm convert")
    with at_work("convert", source, tmp_path / "made"), busy:
        synthesize("llama-2-7b", tmp_path / "made")


def test_of_many_conversions_started_together_one_makes_the_model(source, tmp_path):
    made = tmp_path / "made"
    words = [sys.executable, "-c", RACE, source, made]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with all_started([words] * 4, **pipes) as processes:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate()[0].strip() for process in processes]
    assert said.count("made it") == 1
    others = [text for text in said if text != "made it"]
    assert all("is being written by" in text or "already exists" in text for text in others)
    assert changed_files(made) == []
    assert os.listdir(tmp_path) == ["made"]


def test_a_file_that_comes_while_a_model_is_exported_is_kept(source, tmp_path):
    made = tmp_path / "made.gguf"

    def step(it):
        made.write_text("mine")

    with pytest.raises(ConversionError, match="already exists"):
        export(source, made, progress=step)
    assert made.read_text() == "mine"
    with pytest.raises(ConversionError, match="not a GGUF file"):
        export(source, made, force=True)
    assert made.read_text() == "mine"
    assert os.listdir(tmp_path) == ["made.gguf"]
