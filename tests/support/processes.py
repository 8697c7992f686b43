"""Python in a process of its own."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager

from support.compiled_kernels import shared_kernels


@contextmanager
def started(words, **settings):
    """A process that is there while a block runs; what goes wrong in it leaves none behind.

    Settings are those of ``subprocess.Popen``.
    """
    with subprocess.Popen(list(map(str, words)), **settings) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def all_started(commands, **settings):
    """Several of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(started(words, **settings)) for words in commands]


def python(code, *arguments, check=True):
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
    ).stdout


def answer_of(code, argument, environment):
    """Return what a fresh interpreter answers: JSON goes in as its argument, JSON comes out."""
    with shared_kernels(environment):
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(argument)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


COMMANDS = """
import contextlib, io, json, os, sys
from edgellm.cli.app import main
results = []
for arguments, variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


def results_of(commands, environment, variables=None):
    """Run commands of edgellm after each other in one fresh interpreter.

    Args:
        commands: the words of each.
        environment: the process's.
        variables: of each command, what it adds to the environment.

    Returns:
        Of each, its exit status, and what it wrote to standard output and to standard error.
    """
    asked = [list(map(str, words)) for words in commands]
    variables = variables or [{} for _ in asked]
    return answer_of(COMMANDS, list(zip(asked, variables, strict=True)), environment)
