"""What goes to which stream, also where the reader or the disk fails, and signals."""

import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from support.bench_records import speed
from support.processes import started

from edgellm.bench.report.result_files import write_records
from edgellm.cli.app import main

COMMAND = "import sys; from edgellm.cli.app import main; sys.exit(main(sys.argv[1:]))"


def start(*arguments, **settings):
    """A command line in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return started([sys.executable, "-c", COMMAND, *arguments], **(pipes | settings))


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(model):
    with start("generate", model, "-p", "Once", "--max-tokens", 200) as process:
        process.stdout.read(3)
        process.stdout.close()
        _, err = process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, b"")


COMMANDS = {
    "info": ["info", "MODEL"],
    "info as JSON": ["info", "MODEL", "--json"],
    "plan": ["plan", "MODEL"],
    "verify": ["verify", "MODEL"],
    "generate": ["generate", "MODEL", "-p", "Once", "--max-tokens", "3"],
    "generate as JSON": ["generate", "MODEL", "-p", "Once", "--max-tokens", "3", "--json"],
    "help": ["--help"],
    "help of a command": ["info", "--help"],
    "version": ["--version"],
    "bench compare": ["bench", "compare", "RECORDS", "RECORDS"],
}


@pytest.fixture(params=COMMANDS)
def arguments(request, model, tmp_path):
    """The command line of each command that prints."""
    records = tmp_path / "records.json"
    write_records(records, [speed()])
    places = {"MODEL": model, "RECORDS": str(records)}
    return [places.get(word, word) for word in COMMANDS[request.param]]


@pytest.fixture
def full():
    """Standard output that takes nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        yield full


FULL_DISK = (
    "error: standard output cannot be written: No space left on device\n\n"
    "hint: redirect it somewhere else, or free some space there\n"
)


def test_a_full_disk_is_said(arguments, full, capsys):
    with redirect_stdout(full):
        code = main(arguments)
    assert (code, capsys.readouterr().err) == (1, FULL_DISK)


@pytest.mark.parametrize("command", [["--help"], ["info", "MODEL"]])
def test_a_full_disk_is_said_once_by_a_whole_process(command, model, full):
    words = [model if word == "MODEL" else word for word in command]
    with start(*words, stdout=full) as process:
        _, err = process.communicate()
    assert (process.returncode, err.decode()) == (1, FULL_DISK)


def test_a_reader_that_went_away_ends_every_command_quietly(arguments, capsys):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody, redirect_stdout(nobody), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code, capsys.readouterr().err) == (128 + signal.SIGPIPE, "")


def test_standard_error_that_cannot_be_written_stops_nothing(model, full, capsys):
    with redirect_stderr(full):
        code = main(["info", model])
        assert main(["info", "no-such-model"]) == 1
    assert (code, capsys.readouterr().out.splitlines()[0]) == (0, model)


def test_a_closed_standard_output_is_like_nobody_listening(model):
    command = f'"{sys.executable}" -c "{COMMAND}" generate "{model}" -p Once --max-tokens 3 >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_text_can_be_printed_on_any_terminal(model):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    words = ["-p", "Once é", "--max-tokens", 40, "--temperature", 2, "--seed", 1]
    with start("generate", model, *words, env=environment) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode("ascii")


def test_an_interrupt_ends_it_quietly(model):
    read, write = os.pipe()
    with start("generate", model, "-p", "-", stdin=read) as process:
        os.close(read)
        while process.poll() is None and not waits(process.pid):
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
