"""Forked processes: a clear error where a fork's threads are gone, and all else works."""

import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import os, signal, subprocess, sys
import edgellm

folder = sys.argv[1]
SETTINGS = {"memory": "500MB", "threads": 2}

def forked(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        try:
            work()
        except edgellm.EdgeLLMError as error:
            print(type(error).__name__, error.message, "|", error.hint)
        sys.exit()  # with all that happens at an exit
    _, status = os.waitpid(child, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)

def load_and_generate():
    with edgellm.load(folder, **SETTINGS) as llm:
        print(llm.generate("Once", max_tokens=3).finish_reason)

"""
CHILDREN = Path("/proc/thread-self/children")
HINT = "load the model in each worker process, or start them with the spawn method"
LOADED = (
    "BackendError the model was loaded before this process was forked, "
    f"and its threads do not survive a fork | {HINT}\n"
)
IN_USE = LOADED.replace("the model was loaded", "MLX was in use")


@pytest.fixture
def run(tiny_folder):
    """A function that runs code in a fresh interpreter and returns what it prints."""

    def run(code, **model):
        command = [sys.executable, "-c", PARENT + code, str(tiny_folder(**model))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_a_model_says_in_a_forked_process_that_it_does_not_work_there(run):
    said = run("""
with edgellm.load(folder, **SETTINGS) as llm:
    llm.generate("Once", max_tokens=3)
    forked(lambda: llm.generate("Once", max_tokens=3))
    forked(lambda: llm.generate_batch(["Once", "Twice"], max_tokens=3))
    forked(lambda: next(llm.stream("Once")))
    stream = llm.stream("Once", max_tokens=3)
    next(stream)
    forked(lambda: next(stream))
    forked(llm.close)
    forked(load_and_generate)
    print(llm.generate("Once", max_tokens=3).finish_reason if stream.close() is None else "")
""")
    refused = LOADED + "child 0\n"
    assert said == refused * 4 + "child 0\n" + IN_USE + "child 0\n" + "length\n"


def test_a_paged_model_says_so_too(run):
    said = run("""
with edgellm.load(folder, context=64, prefill_chunk=32) as llm:
    budget = llm.plan.total_bytes - 1
with edgellm.load(folder, context=64, memory=budget) as llm:
    assert not llm.plan.resident
    forked(lambda: llm.generate("Once", max_tokens=3))
    forked(llm.close)
    print(llm.generate("Once", max_tokens=3).finish_reason)
""")
    assert said == LOADED + "child 0\n" + "child 0\n" + "length\n"


def test_mlx_in_use_before_the_fork_is_found_whoever_has_used_it(run):
    said = run("""
import mlx.core as mx
edgellm.load
mx.eval(mx.ones(3) + 1)
forked(load_and_generate)
""")
    assert said == IN_USE + "child 0\n"


def test_what_comes_before_any_use_may_be_forked_and_programs_may_be_run(run):
    said = run("""
edgellm.LLM
forked(load_and_generate)
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=load_and_generate)
worker.start()
worker.join(60)
print("worker", worker.exitcode, flush=True)
load_and_generate()
print(subprocess.run(["echo", "run"], capture_output=True, text=True).stdout, end="")
""")
    assert said == "length\nchild 0\nlength\nworker 0\nlength\nrun\n"


@pytest.mark.skipif(not CHILDREN.exists(), reason="needs /proc")
def test_a_forked_process_leaves_its_parents_render_process_alone(run):
    said = run("""
from pathlib import Path
def children():
    return Path("/proc/thread-self/children").read_text().split()
with edgellm.load(folder, **SETTINGS) as llm, llm.chat(max_tokens=2) as chat:
    chat.send("one")
    before = children()
    forked(lambda: None)
    chat.send("two")
    print(len(before), before == children())
""")
    assert said == "child 0\n1 True\n"
