"""What goes to which stream, also where the reader or the disk fails, and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = "import sys; from edgellm.cli.app import main; sys.exit(main(sys.argv[1:]))"


def start(*arguments, **settings):
    """A command line in a process of its own."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(model):
    process = start("generate", model, "-p", "Once", "--max-tokens", 200)
    process.stdout.read(3)
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (1, b"")


def test_a_full_disk_is_said(model):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("wb") as full:
        command = [
            sys.executable,
            "-c",
            COMMAND,
            "generate",
            model,
            "-p",
            "Once",
            "--max-tokens",
            "3",
        ]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: ")
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output_is_like_nobody_listening(model):
    command = f'"{sys.executable}" -c "{COMMAND}" generate "{model}" -p Once --max-tokens 3 >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_text_can_be_printed_on_any_terminal(model):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start(
        "generate",
        model,
        "-p",
        "Once é",
        "--max-tokens",
        40,
        "--temperature",
        2,
        "--seed",
        1,
        env=environment,
    )
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode("ascii")


def test_an_interrupt_ends_it_quietly(model):
    read, write = os.pipe()
    process = start("generate", model, "-p", "-", stdin=read)
    os.close(read)
    while Path(f"/proc/{process.pid}/stat").exists() and not waits(process.pid):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    os.close(write)
    assert (process.returncode, out) == (130, b"")
    assert err == b"interrupted\n"


def waits(pid):
    """Whether a process has loaded the tokenizer and sits waiting for its input."""
    if not Path("/proc").exists():
        time.sleep(3)
        return True
    libraries = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return (
        "tokenizers" in libraries
        and Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "S"
    )


def test_a_local_folder_opens_no_socket(model):
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    assert not event.startswith('socket.'), event\n"
        "sys.addaudithook(refuse)\n"
        "from edgellm.cli.app import main\n"
        "for words in (['generate', '-p', 'x', '--max-tokens', '2'], ['info'], ['plan']):\n"
        "    assert main([*words, sys.argv[1]]) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
