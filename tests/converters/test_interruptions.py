"""Conversions killed, short of space, in each other's way, or replacing: nothing half made."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import pytest
from support.folders import changed_files
from support.processes import python
from support.tiny import CONFIGS, write_model

from edgellm.checkpoint.folder import open_folder
from edgellm.converters import convert
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.errors import ConfigError, ConversionError, FormatError, ReadError

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 2}


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


KILLS = """
import contextlib, os, signal, sys
import edgellm.converters.quantizers.source
from edgellm.converters import convert
with contextlib.suppress(ImportError):
    import llvmlite.binding  # here, and not again in every child

source, made, force = sys.argv[1], sys.argv[2], sys.argv[3] == "force"
STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
WRITES = os.O_WRONLY | os.O_RDWR

def run(last):
    '''Convert in a child that is killed before it does its step number ``last``; whether it was.'''
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    steps = 0
    def count(event, arguments):
        nonlocal steps
        # a kill before a step that only reads leaves what a kill before the next one leaves
        changes = event in STEPS or event == "open" and arguments[2] & WRITES
        if changes and made in str(arguments[0]):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    convert(source, made, force=force)
    os._exit(0)

step = 1
while run(step):
    places = (made, os.path.join(os.path.dirname(made), "made.edgellm.replaced"))
    heads = [os.path.join(path, "model-head.safetensors") for path in places]
    if force and not any(map(os.path.exists, heads)):
        sys.exit(f"neither the old nor the new model is there after step {step}")
    if run(0):
        sys.exit("the second run was killed")
    print(step, flush=True)
    sys.stdin.readline()
    step += 1 if force else 4  # replacing takes all the steps that making takes, and more
print("done", flush=True)
"""


@pytest.fixture
def quick_disk(tmp_path):
    """A folder in memory where there is one: thousands of flushes there take no time."""
    with tempfile.TemporaryDirectory(
        dir=next(filter(os.path.isdir, ["/dev/shm"]), tmp_path)
    ) as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform == "darwin", reason="Metal does not live through fork")
@pytest.mark.parametrize("force", [False, True])
def test_killed_before_any_step_and_run_again_the_bytes_are_the_same(
    quick_disk, force, tmp_path_factory
):
    """Kill a conversion before each step of it that changes what lies on the disk."""
    tmp_path = quick_disk
    config = LLAMA | {"num_hidden_layers": 1}
    source = write_model(tmp_path / "source", config, dtype=mx.bfloat16, tokenizer=False)
    convert(source, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    made = tmp_path / "made"
    old = tmp_path_factory.mktemp("old") / "made"
    if force:
        convert(write_model(old.with_name("source"), config, seed=1, tokenizer=False), old)

    def prepare():
        if made.exists():
            for file in made.iterdir():
                file.unlink()
            made.rmdir()
        if force:
            shutil.copytree(old, made)

    prepare()
    script = [sys.executable, "-c", KILLS, source, made, "force" if force else "no"]
    with subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            assert contents(made) == expected, f"after step {line}"
            assert {path.name for path in tmp_path.iterdir()} == {"source", "whole", "made"}
            if line == "done\n":
                break
            last = int(line)
            prepare()
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait() == 0, process.stderr.read()
    assert last > 20


def test_killed_in_the_middle_of_a_file_it_goes_on_with_the_next(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "whole")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from edgellm.converters import convert\n"
        "def step(it):\n"
        "    if len(list(Path(sys.argv[2] + '.partial').glob('*.safetensors'))) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(sys.argv[1], sys.argv[2], progress=step)"
    )
    python(code, source, tmp_path / "made", check=False)
    half = tmp_path / "made.partial"
    assert 2 <= len(list(half.glob("*.safetensors"))) < 4
    assert not (tmp_path / "made").exists()
    with pytest.raises(FormatError, match="half converted"):
        open_folder(half)
    with pytest.raises(FormatError, match="has not finished"):
        convert(half, tmp_path / "other")
    report = convert(source, tmp_path / "made")
    assert 1 <= report.kept_files < 4  # two are made at a time: one may not have been noted yet
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")
    assert not half.exists()


def stopped(source, made, **settings):
    """Stop a conversion, as Ctrl-C would, with two files made; tell whether it started again."""
    messages = []
    half = made.with_name(f"{made.name}.partial")

    def step(it):
        messages.append(it.message)
        if len(list(half.glob("*.safetensors"))) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, made, progress=step, **settings)
    return any("starting over" in message for message in messages if message)


def test_another_source_or_other_settings_start_anew_and_say_so(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    made = tmp_path / "made"
    assert not stopped(source, made)
    assert not stopped(source, made)
    assert stopped(source, made, bits=8)
    assert stopped(source, made, bits=8, dtype="bfloat16")
    write_model(tmp_path / "other", LLAMA, seed=1)
    (tmp_path / "other" / "model.safetensors").replace(source / "model.safetensors")
    assert stopped(source, made, bits=8, dtype="bfloat16")
    made.mkdir()
    (made / "taken").write_text("")
    before = contents(tmp_path / "made.partial")
    with pytest.raises(ConversionError):
        convert(source, made)
    assert contents(tmp_path / "made.partial") == before
    (made / "taken").unlink()
    made.rmdir()
    finished = list((tmp_path / "made.partial").glob("*.safetensors"))
    os.truncate(finished[0], 5)
    report = convert(source, made, bits=8, dtype="bfloat16")
    assert report.kept_files == len(finished) - 1
    convert(source, tmp_path / "whole", bits=8, dtype="bfloat16")
    assert contents(made) == contents(tmp_path / "whole")


@pytest.mark.parametrize("place", [0, 20_000, -1])
def test_a_byte_that_has_changed_since_is_found_and_the_file_made_anew(tmp_path, place):
    source = write_model(tmp_path / "source", LLAMA)
    made, half = tmp_path / "made", tmp_path / "made.partial"
    stopped(source, made)
    finished = list(half.glob("*.safetensors"))
    damaged = finished[0]
    content = bytearray(damaged.read_bytes())
    content[place] ^= 4
    damaged.write_bytes(content)
    steps = []
    report = convert(source, made, progress=steps.append)
    assert report.kept_files == len(finished) - 1
    said = [step.message for step in steps if step.message]
    assert said == [
        f"checking {len(finished)} finished files",
        f"{damaged.name} is damaged, and is made again",
    ]
    assert steps[-1].bytes_done == steps[-1].bytes_total
    convert(source, tmp_path / "whole")
    assert contents(made) == contents(tmp_path / "whole")


def test_errors_are_measured_also_of_files_that_are_finished(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    stopped(source, tmp_path / "made")
    report = convert(source, tmp_path / "made", report=True)
    assert len(report.errors) == 2 * 7 + 2
    assert report.kept_files == 0
    stopped(source, tmp_path / "again", report=True)
    again = convert(source, tmp_path / "again", report=True)
    assert again.errors == report.errors
    assert again.kept_files >= 2


def test_what_is_there_is_replaced_only_by_force_and_only_if_it_is_a_model(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    made = tmp_path / "made"
    made.mkdir()
    convert(source, made)  # an empty folder is free
    eight = convert(source, tmp_path / "eight", bits=8)
    for taken in (made, source):
        with pytest.raises(ConversionError, match="already exists") as caught:
            convert(tmp_path / "eight", taken)
        assert "--force" in caught.value.hint
    convert(source, made, bits=8, force=True)
    assert contents(made) == contents(eight.path)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "cat.partial").write_text("a cat")  # half a download of somebody's
    (tmp_path / "file").write_text("a file")
    for taken in (photographs, tmp_path / "file"):
        with pytest.raises(ConversionError):
            convert(source, taken, force=True)
    photographs.rename(tmp_path / "new.partial")
    with pytest.raises(ConversionError, match="in the way"):
        convert(source, tmp_path / "new", force=True)
    assert (tmp_path / "new.partial" / "cat.partial").read_text() == "a cat"
    for itself in (source, tmp_path / "eight" / ".." / "source"):
        with pytest.raises(ConfigError, match="into itself"):
            convert(source, itself, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "source",
        "made",
        "eight",
        "file",
        "new.partial",
    }


def test_a_model_that_could_not_be_replaced_stays(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "made")
    before = contents(tmp_path / "made")
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(FormatError):
        convert(source, tmp_path / "made", force=True)
    assert contents(tmp_path / "made") == before


def test_a_disk_that_fills_up_is_said_and_the_rest_is_kept(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    code = (
        "import resource, signal, sys\n"
        "from edgellm.converters import convert\n"
        "from edgellm.errors import ConversionError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "try: convert(sys.argv[1], sys.argv[2], bits=8)\n"
        "except ConversionError as error: print(error.message, '|', error.hint)\n"
    )
    said = python(code, source, tmp_path / "made")
    assert said.startswith("no space left for")
    assert "continues where it stopped" in said
    assert not (tmp_path / "made").exists()
    assert not list((tmp_path / "made.partial").glob("*.partial"))
    report = convert(source, tmp_path / "made", bits=8)
    assert report.kept_files > 0
    assert changed_files(tmp_path / "made") == []


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "made", tmp_path / ("x" * 300)):
        with pytest.raises(ConversionError, match="cannot be written"):
            convert(source, place)


def test_a_source_that_shrinks_while_it_is_read_is_said(tmp_path):
    path = write_model(tmp_path / "source", LLAMA)
    source = HuggingFaceSource(path)
    os.truncate(path / "model.safetensors", 5000)
    with pytest.raises(ReadError, match="cut short while it was read"):
        source.rows("model.layers.1.mlp.down_proj.weight", 0, 64)
