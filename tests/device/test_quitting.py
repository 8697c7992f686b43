"""A program that ends in the middle of an answer ends silently, with its own exit status."""

import copy
import pickle
import subprocess
import sys

import pytest
from support.paths import ROOT

import edgellm

PROGRAM = """
import sys, threading
import edgellm

llm = edgellm.load("stories", threads=1)
begun = threading.Event()

def answer(count):
    for _ in llm.stream("Once", max_tokens=count):
        begun.set()

def step():
    engine = llm.engine()
    engine.submit("Once", max_tokens=900)
    while engine.step():
        begun.set()

way = sys.argv[1]
if way == "unread":
    stream = llm.stream("Once", max_tokens=9)
    next(stream)
elif way == "thread":
    threading.Thread(target=answer, args=(9,)).start()
else:
    for number in range(3):
        target, arguments = answer, (900,)
        if number == 2 and way == "engine":
            target, arguments = step, ()
        threading.Thread(target=target, args=arguments, daemon=True).start()
    begun.wait()
sys.exit(3)
"""


@pytest.mark.parametrize("way", ["unread", "thread", "daemons", "engine"])
def test_a_program_ends_in_mid_answer(way):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way], capture_output=True, timeout=60, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


def test_what_belongs_to_the_process_is_not_copied_and_shown_in_a_line(open_llm):
    llm = open_llm("llama-2", seed=1)
    stream = llm.stream([1, 2, 3], max_tokens=2)
    for one in (llm, stream, llm.engine()):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(edgellm.EdgeLLMError, match="neither pickled nor copied") as refused:
                take(one)
            assert refused.value.hint
        assert len(repr(one)) < 200
    assert repr(stream) == "<Stream open, 0 tokens read>"
    list(stream)
    assert repr(stream) == "<Stream length, 2 tokens read>"
    assert len(repr(stream.completion)) < 120
