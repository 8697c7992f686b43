"""A model is opened: what is told meanwhile, and nothing left behind when it is closed or fails."""

import gc
import json
import os
import subprocess
import sys

import mlx.core as mx
import pytest
from support import tiny
from support.counting import load_settings, paged_settings
from support.paths import ROOT
from support.resources import NOTHING, held, more_since

import edgellm
from edgellm.errors import EdgeLLMError, FormatError

PROMPT = [tiny.BEGIN, *range(40, 60)]


MANY_GENERATIONS = """
import gc, json, os, sys, threading
import edgellm, mlx.core as mx
from edgellm.device.machine import process_memory
llm = edgellm.load(sys.argv[1], **json.loads(sys.argv[2]))
def answer(number):
    settings = {"max_tokens": 3, "temperature": 0.5 * (number % 3), "seed": number, "stop": "xyz"}
    stream = llm.stream([0, *range(40, 60)], repetition_penalty=1.1, **settings)
    next(stream)
    if number % 2:
        list(stream)
def names(folder): return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
def run(count):
    for number in range(count):
        if number % 4:
            answer(number)
        else:
            thread = threading.Thread(target=answer, args=(number,))
            thread.start()
            thread.join()
    gc.collect()
    left = [names("/dev/fd"), len(names("/proc/self/task")), threading.active_count()]
    return {"left": left, "arrays": mx.get_active_memory(), "memory": process_memory()}
run(40)
print(json.dumps([run(10), run(200)]))
"""


@pytest.mark.parametrize("paged", [False, True])
def test_two_hundred_short_generations_leave_nothing_behind(paged, tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    settings = json.dumps(load_settings(folder, paged=paged))
    command = [sys.executable, "-c", MANY_GENERATIONS, str(folder), settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert after["left"] == before["left"], "files, system threads, Python's threads"
    assert after["arrays"] <= before["arrays"] + 4096
    assert after["memory"] <= before["memory"] + (2 << 20)


@pytest.mark.parametrize("paged", [False, True])
def test_a_closed_model_has_given_everything_back(paged, tiny_folder):
    folder = tiny_folder("llama-2", seed=1)

    def open_and_close():
        with edgellm.load(folder, **load_settings(folder, paged=paged)) as llm:
            assert llm.plan.resident != paged
            stream = llm.stream(PROMPT, max_tokens=30)
            next(stream)
        del llm, stream
        gc.collect()
        return mx.get_active_memory()

    open_and_close()
    memory, before = open_and_close(), held()
    for _ in range(3):
        after = open_and_close()
    assert (after, more_since(before)) == (memory, NOTHING)


def test_a_model_that_nobody_closed_leaves_no_thread(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    before = held()
    llm = edgellm.load(folder, **paged_settings(folder))
    stream = llm.stream(PROMPT, max_tokens=30)
    next(stream)
    assert more_since(before)[0]
    del llm, stream
    assert more_since(before) == NOTHING


def test_a_folder_that_cannot_be_loaded_leaves_no_thread_and_no_file(tiny_folder, tmp_path):
    before = held()
    broken = tiny.write_model(tmp_path / "broken", tiny.CONFIGS["llama-2"])
    file = broken / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1000])
    with pytest.raises(FormatError):
        edgellm.load(broken)
    file.write_bytes(data)
    with pytest.raises(EdgeLLMError):
        edgellm.load(broken, memory=1000)
    assert more_since(before) == NOTHING


def test_the_progress_of_loading_ends_with_all_that_stays(tiny_folder):
    folder = tiny_folder("llama-3.2")
    for settings in ({}, paged_settings(folder)):
        told = []

        def tell(done, total, told=told):
            told.append((done, total))

        with edgellm.load(folder, progress=tell, **settings) as llm:
            assert llm.plan.resident == (not settings)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1]
        assert len({total for _, total in told}) == 1


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("step", ["progress", "draft", "prompt cache"])
def test_a_load_that_fails_at_a_later_step_leaves_nothing_open(step, paged, tiny_folder, tmp_path):
    folder = tiny_folder("llama-2", seed=1)
    settings = load_settings(folder, paged=paged)
    other = tiny.write_model(tmp_path / "other", tiny.CONFIGS["llama-2"])
    tokenizer = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(tokenizer.replace("<|user|>", "<|who|>"), "utf-8")

    def stop(done, total):
        raise RuntimeError("no more")

    failing = {
        "progress": {"progress": stop},
        "draft": {"draft": other, "memory": "500MB"},
        "prompt cache": {"prompt_cache": "~nobody-of-this-name/cache"},
    }[step]
    if step == "draft" and paged:
        failing |= {"memory": paged_memory_with_draft(folder, other)}
    with edgellm.load(folder, **settings) as llm:
        llm.generate(PROMPT, max_tokens=1)  # what is started once a process
    before = held()
    errors = []
    for _ in range(3):
        with pytest.raises((EdgeLLMError, RuntimeError)) as raised:
            edgellm.load(folder, **(settings | failing))
        errors.append(raised)  # with all that their frames hold
    assert more_since(before) == NOTHING


def paged_memory_with_draft(folder, draft):
    """A budget in which a model with a draft streams some of its layers."""
    with pytest.raises(EdgeLLMError) as raised:
        edgellm.load(folder, memory=1, draft=draft, context=96)
    return raised.value.hint.split("--memory ")[1].split()[0]


def test_no_socket_is_opened_for_a_local_folder(tiny_folder):
    code = (
        "import json, sys\n"
        "events = []\n"
        "def watch(name, _):\n"
        "    if name.startswith('socket.'): events.append(name)\n"
        "sys.addaudithook(watch)\n"
        "import edgellm\n"
        f"with edgellm.load({str(tiny_folder('llama-2'))!r}) as llm:\n"
        "    text = llm.generate('Once upon a time', max_tokens=4, beams=2).text\n"
        "    with llm.chat(system='Be brief.') as chat: chat.send('Hello', max_tokens=4)\n"
        "print(json.dumps(events))"
    )
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
