"""Caches on disk: found again by a prompt's prefix, and never the reason for a wrong answer."""

import os
import signal
import subprocess
import sys
import time
import warnings

import mlx.core as mx
import numpy as np
import pytest
from support.paths import ROOT
from support.processes import all_started, started

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.checkpoint.safetensors_file import TensorData, read_header, write_tensors
from edgellm.errors import ConfigError
from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.prompt_cache.disk_cache import ABANDONED_SECONDS, MIN_TOKENS, PromptCache
from edgellm.prompt_cache.owned_folder import FOLDER_NAME
from edgellm.settings import LoadSettings

LONG = {"max_position_embeddings": 2048}
KINDS = [
    {},
    {"kv_bits": 16},
    {"kv_bits": 8},
    {"kv_bits": 4},
    {"context_window": 40},
    {"context_window": 40, "kv_bits": 8},
]


def prompt(length, seed=0):
    return [
        seed + 20,
        *(int(token) for token in np.random.default_rng(seed).integers(40, 250, length - 1)),
    ]


@pytest.fixture
def answer(open_llm, tmp_path):
    """A function that loads a model as a new process would, and continues a prompt."""

    def generate(ids, *, cache=True, model="llama-2", load=None, **settings):
        kept = {"prompt_cache": tmp_path / "kept"} if cache else {}
        with open_llm(
            model, seed=1, config=LONG, load={"speculate": "off"} | kept | (load or {})
        ) as llm:
            done = llm.generate(ids, **{"max_tokens": 12} | settings)
        return [token.id for token in done.tokens], done.stats

    return generate


def files(folder):
    """The files of every model's sequences."""
    return sorted(folder.glob(f"{FOLDER_NAME}/model-*/*"))


def partial_files(folder):
    return list(folder.glob(f"{FOLDER_NAME}/model-*/*.partial"))


@pytest.mark.parametrize("load", KINDS, ids=str)
def test_the_second_run_of_a_prompt_computes_only_its_last_token(answer, load, tmp_path):
    ids = prompt(300)
    expected, first = answer(ids, load=load)
    assert (first.cached_tokens, first.restored_tokens) == (0, 0)
    found, second = answer(ids, load=load)
    assert found == expected
    # whose first tokens are gone: only the whole sequence goes on
    windowed = "context_window" in load
    if windowed:
        assert second.restored_tokens in (0, 299)
    else:
        assert (second.cached_tokens, second.restored_tokens) == (299, 299)
        assert len(files(tmp_path / "kept")) == 1


def test_what_a_prompt_begins_with_is_found(answer):
    system = prompt(200)
    answer([*system, *prompt(60, 1)])
    ids = [*system, 2, *prompt(49, 2)]
    expected, _ = answer(ids, cache=False)
    found, stats = answer(ids)
    assert found == expected
    assert stats.restored_tokens == 200
    _, again = answer(system)
    assert again.restored_tokens == 199


def test_a_window_goes_on_from_where_it_ended(answer):
    load = {"context_window": 40}
    ids = prompt(300)
    produced, _ = answer(ids, load=load)
    longer = [*ids, *produced[:-1], *prompt(20, 5)]
    expected, _ = answer(longer, load=load, cache=False)
    found, stats = answer(longer, load=load)
    assert found == expected
    assert stats.restored_tokens == 300 + len(produced) - 1


@pytest.mark.parametrize(
    "other",
    [
        {"kv_bits": 8},
        {"kv_bits": 32},
        {"activations": "float", "backend": "mlx"},
        {"context_window": 500},
    ],
    ids=str,
)
def test_settings_that_change_the_numbers_have_sequences_of_their_own(answer, other):
    ids = prompt(200)
    answer(ids)
    assert answer(ids, load=other)[1].restored_tokens == 0
    assert answer(ids)[1].restored_tokens == 199


def test_another_model_of_the_same_shape_has_sequences_of_its_own(open_llm, tmp_path, tiny_folder):
    one, other = (read_checkpoint(tiny_folder("llama-2", seed=seed)) for seed in (1, 2))
    assert fingerprint(one) != fingerprint(other)
    copied = tmp_path / "copy"
    copied.mkdir()
    for file in one.folder.path.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
        os.utime(copied / file.name, ns=(file.stat().st_mtime_ns,) * 2)
    assert fingerprint(read_checkpoint(copied)) == fingerprint(one), "wherever it lies"


def test_a_sequence_takes_the_place_of_its_beginnings(answer, tmp_path):
    ids = prompt(500)
    for length in (100, 300, 500):
        answer(ids[:length], max_tokens=1)
    assert len(files(tmp_path / "kept")) == 1
    answer([*ids[:250], *prompt(250, 9)])
    assert len(files(tmp_path / "kept")) == 2


def test_short_prompts_are_not_kept(answer, tmp_path):
    answer(prompt(MIN_TOKENS - 20))
    assert files(tmp_path / "kept") == []


def test_one_process_keeps_a_sequence_when_another_takes_its_place(open_llm, tmp_path):
    llm = open_llm(
        "llama-2",
        seed=1,
        config=LONG,
        load={"prompt_cache": str(tmp_path / "kept"), "speculate": "off"},
    )
    for seed in range(3):
        assert llm.generate(prompt(200, seed), max_tokens=2).stats.cached_tokens == 0
        assert len(files(tmp_path / "kept")) == seed
    assert llm.generate(prompt(200, 0), max_tokens=2).stats.restored_tokens == 199
    same = llm.generate(prompt(200, 0), max_tokens=2).stats
    assert (same.cached_tokens, same.restored_tokens) == (199, 0)
    logits = np.array(llm.logits(prompt(200, 1)))
    llm.close()
    assert logits.shape == (200, llm.config.vocab_size)


TOKENS = 16384 + 4 * 290
"""Where a token of a file stands."""

DAMAGES = {
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "empty": lambda _: b"",
    "one bit": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "a late token": lambda data: data[:TOKENS] + bytes([data[TOKENS] ^ 1]) + data[TOKENS + 1 :],
    "another version": lambda data: data.replace(b'"version":"1"', b'"version":"9"'),
    "another model": lambda data: data.replace(b'"key":"', b'"kex":"', 1),
    "no header": lambda data: b"\xff" * len(data),
    "longer": lambda data: data + b"more",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_left_aside_with_a_warning(answer, damage, tmp_path):
    ids = prompt(300)
    expected, _ = answer(ids)
    [path] = files(tmp_path / "kept")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(RuntimeWarning, match="is ignored"):
        found, stats = answer(ids)
    assert found == expected
    assert stats.cached_tokens == 0
    assert answer(ids)[1].restored_tokens == 299, "a whole one took its place"


def test_a_file_of_another_form_is_left_aside(answer, tmp_path):
    ids = prompt(300)
    expected, _ = answer(ids)
    [path] = files(tmp_path / "kept")
    tensors, metadata = read_header(path)
    data = path.read_bytes()
    kept = [
        TensorData(info.name, info.dtype, info.shape, data[info.offset : info.offset + info.nbytes])
        for info in tensors.values()
        if not info.name.startswith("layers.1.")
    ]
    write_tensors(path, kept, metadata=metadata)
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert answer(ids)[0] == expected


SAVES = """
import sys
import edgellm
settings = {"memory": "500MB", "prompt_cache": sys.argv[2], "speculate": "off"}
for seed in range(1000):
    prompt = [1, *(40 + (seed * 7 + place * 31) % 200 for place in range(1800))]
    with edgellm.load(sys.argv[1], **settings) as llm:
        llm.generate(prompt, max_tokens=1)
"""


def test_a_process_that_is_killed_while_it_saves_leaves_nothing_that_is_used(
    answer, tiny_folder, tmp_path
):
    folder, kept = tiny_folder("llama-2", seed=1, config=LONG), tmp_path / "kept"
    ids = [1, *(40 + place * 31 % 200 for place in range(1800))]
    expected, _ = answer(ids, cache=False)
    caught = 0
    for _ in range(4):
        with started([sys.executable, "-c", SAVES, folder, kept], cwd=ROOT) as process:
            while process.poll() is None and not partial_files(kept):
                pass  # a file is there under this name for a moment
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        caught += bool(partial_files(kept))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file under a temporary name is nobody's business
            assert answer(ids)[0] == expected
    assert caught, "killed in the middle of writing"
    for path in partial_files(kept):
        os.utime(path, (time.time() - ABANDONED_SECONDS - 1,) * 2)
    answer(prompt(300, 8))
    assert not partial_files(kept)


def test_many_processes_at_once_agree(answer, tiny_folder, tmp_path):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    code = SAVES.replace("range(1000)", "range(3)")
    command = [sys.executable, "-W", "error", "-c", code, folder, tmp_path / "kept"]
    with all_started([command] * 3, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        assert [process.communicate()[1] for process in running] == [""] * 3
        assert [process.returncode for process in running] == [0] * 3
    assert len(files(tmp_path / "kept")) == 3
    ids = [1, *(40 + place * 31 % 200 for place in range(1800))]
    found, stats = answer(ids)
    assert (found, stats.restored_tokens) == (answer(ids, cache=False)[0], 1800)


LENGTH = 300
FORMAT = KVFormat(2, 8, mx.float16)


def filled(length):
    """The caches of two layers that hold so many tokens."""
    caches = [KVCache(FORMAT, capacity=2048) for _ in range(2)]
    for cache in caches:
        cache.update(mx.ones((1, 2, length, 8)), mx.ones((1, 2, length, 8)))
    return caches


def restored(cache, ids):
    """Tokens that the cache on disk has of a prompt."""
    caches = filled(0)
    found = cache.find(ids, caches)
    return 0 if found is None else cache.load(found, caches)


def test_the_least_recently_used_go_first(tmp_path):
    one = PromptCache(tmp_path, lambda: "model")
    one.save(prompt(LENGTH, 0), filled(LENGTH))
    size = one.nbytes
    limit = 3 * size + size // 2
    small = PromptCache(tmp_path, lambda: "model", limit=limit)
    for seed in (1, 2):
        small.save(prompt(LENGTH, seed), filled(LENGTH))
        time.sleep(0.02)
    assert restored(small, prompt(LENGTH, 0)) == LENGTH, "used again, and so not the oldest"
    small.save(prompt(LENGTH, 3), filled(LENGTH))
    assert small.nbytes <= limit
    assert [restored(small, prompt(LENGTH, seed)) for seed in range(4)] == [
        LENGTH,
        0,
        LENGTH,
        LENGTH,
    ]


def test_a_sequence_larger_than_the_limit_is_not_kept(tmp_path):
    tiny = PromptCache(tmp_path, lambda: "model", limit=100)
    tiny.save(prompt(LENGTH), filled(LENGTH))
    assert tiny.nbytes == 0


def test_all_models_share_the_limit(tmp_path):
    one = PromptCache(tmp_path, lambda: "one")
    one.save(prompt(LENGTH, 0), filled(LENGTH))
    other = PromptCache(tmp_path, lambda: "other", limit=one.nbytes + 100)
    time.sleep(0.02)
    other.save(prompt(LENGTH, 1), filled(LENGTH))
    assert restored(one, prompt(LENGTH, 0)) == 0
    assert restored(other, prompt(LENGTH, 1)) == LENGTH


def test_a_folder_that_cannot_be_written_costs_a_warning(answer, tmp_path):
    (tmp_path / "kept").write_text("a file")
    ids = prompt(200)
    with pytest.warns(RuntimeWarning, match="was not kept: .* cannot be written"):
        found, _ = answer(ids)
    assert found == answer(ids, cache=False)[0]


@pytest.mark.parametrize("value", ["", 1, None])
def test_the_setting_is_checked(value):
    with pytest.raises(ConfigError, match="prompt_cache"):
        LoadSettings(prompt_cache=value)
