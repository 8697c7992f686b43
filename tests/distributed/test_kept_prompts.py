"""Prompts that are kept on disk serve the next cluster; a part that is missing costs its use."""

import shutil

import pytest
from support.clusters import members

import edgellm
from edgellm.prompt_cache.disk_cache import MIN_TOKENS, default_folder

PROMPT = [3 + 7 * token % 300 for token in range(2 * MIN_TOKENS)]
LOAD = {"context": 3 * MIN_TOKENS, "threads": 1, "memory": "500MB"}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The folder in which all machines of this test keep their sequences."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return default_folder()


def parts_in(folder):
    """The folders of parts of models."""
    return sorted({path.parent for path in folder.rglob("*.safetensors")})


@pytest.mark.parametrize("split", ["windows", pytest.param("rows", marks=pytest.mark.slow)])
def test_the_next_cluster_begins_with_what_is_kept(tiny_folder, tmp_path, kept, split):
    folder = tiny_folder("llama-3.2")
    with edgellm.load(folder, **LOAD) as llm:
        one = llm.generate(PROMPT, max_tokens=20).text
        other = llm.generate(PROMPT[:100] + PROMPT[:9], max_tokens=20).text
    with members(folder, tmp_path, ["500MB"]) as hosts:

        def ask(prompt):
            load = {"machines": hosts, "split": split, "prompt_cache": True}
            with edgellm.load(folder, **load, **LOAD) as llm:
                answer = llm.generate(prompt, max_tokens=20)
            return answer.text, answer.stats.restored_tokens

        assert ask(PROMPT) == (one, 0)
        assert len(parts_in(kept)) == 2  # each machine has one of its own
        assert ask(PROMPT) == (one, len(PROMPT) - 1)
        assert ask(PROMPT[:100] + PROMPT[:9]) == (other, 100)
        for part in parts_in(kept):
            copied = shutil.copytree(part, tmp_path / part.name)
            shutil.rmtree(part)
            assert ask(PROMPT) == (one, 0)
            shutil.rmtree(part)
            shutil.copytree(copied, part)
            assert ask(PROMPT) == (one, len(PROMPT) - 1)


def test_a_damaged_part_is_left_aside(tiny_folder, tmp_path, kept):
    folder = tiny_folder("llama-3.2")
    with members(folder, tmp_path, ["500MB"]) as hosts:

        def ask():
            with edgellm.load(folder, machines=hosts, prompt_cache=True, **LOAD) as llm:
                answer = llm.generate(PROMPT, max_tokens=20)
            return answer.text, answer.stats.restored_tokens

        text, _ = ask()
        for part in parts_in(kept):
            (file,) = part.glob("*.safetensors")
            whole = file.read_bytes()
            file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
            with pytest.warns(RuntimeWarning, match="is ignored"):
                assert ask() == (text, 0)
            file.write_bytes(whole)
