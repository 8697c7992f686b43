"""``edgellm serve`` in a process of its own, for clients of other people."""

import re
import subprocess
import sys

import pytest

import edgellm

TEXT = "Tell me a story about a small boat."


@pytest.fixture(scope="package")
def url():
    command = [sys.executable, "-m", "edgellm", "serve", "stories", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stderr.readline()
            found = re.search(r"(http://[\d.:]+)/v1", said)
            assert found, said
            yield found.group(1)
        finally:
            process.terminate()


@pytest.fixture(scope="package")
def told():
    """What the Python API answers, without drawing, in 24 tokens."""
    with edgellm.load("stories") as llm:
        return llm.chat(temperature=0).send(TEXT, max_tokens=24)
