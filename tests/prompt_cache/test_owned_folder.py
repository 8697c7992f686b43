"""Strangers' files beside the prompt cache, and even inside it, are never touched."""

import hashlib
import os
import secrets
import shutil
import time

import mlx.core as mx
import pytest
from support.disk_limits import file_size_limit, no_umask, open_to_others

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError
from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.prompt_cache.disk_cache import ABANDONED_SECONDS, PromptCache, prompt_cache_for
from edgellm.prompt_cache.owned_folder import (
    FOLDER_NAME,
    MARKER_NAME,
    OwnedFolder,
    sequence_name,
)
from edgellm.settings import LoadSettings

LENGTH = 100
FORMAT = KVFormat(2, 8, mx.float16)
DIGEST = "0123456789abcdef" * 4
MODEL = "model-" + "0123456789abcdef" * 2


def temporary_name():
    """A name that ``write_file`` gives to a sequence while it writes it."""
    return f"{sequence_name(DIGEST)}.{secrets.token_hex(8)}.edgellm.partial"


AGES = (0, 2 * ABANDONED_SECONDS, 5 * 365 * 24 * 3600)
"""Seconds."""

STRANGERS = (
    "notes.txt",
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "sub/model.safetensors",
    "sub/photo.jpeg",
    "sub/photo.jpeg.partial",
    "sub/deeper/diary",
    "sub/weights.1234.0.new",
    f"sub/{DIGEST[:32]}.safetensors",
    f"sub/{sequence_name(DIGEST)}",
    f"sub/{temporary_name()}",
    f"{MODEL}/{sequence_name(DIGEST)}",
    f"{MODEL}/{temporary_name()}",
    f"{FOLDER_NAME}2/{MODEL}/{sequence_name(DIGEST)}",
)
"""Files that may lie in a person's folder."""

NEARLY_OURS = (
    "model.safetensors",
    "edgellm-kv.safetensors",
    sequence_name(DIGEST[:-1]),
    sequence_name(DIGEST + "0"),
    sequence_name(DIGEST.upper()),
    sequence_name(DIGEST) + ".bak",
    "a-" + sequence_name(DIGEST),
    sequence_name(DIGEST) + "\n",
    sequence_name(DIGEST) + ".edgellm.partial",
    temporary_name() + ".partial",
    temporary_name().replace(".safetensors", ""),
    f"edgellm-kv-{DIGEST}-1234.new",
)
"""Names that are not of our form, to be found even below the cache's own sub-folder."""


def filled():
    """The caches of two layers that hold ``LENGTH`` tokens."""
    caches = [KVCache(FORMAT, capacity=1024) for _ in range(2)]
    for cache in caches:
        cache.update(mx.ones((1, 2, LENGTH, 8)), mx.ones((1, 2, LENGTH, 8)))
    return caches


def tokens(seed):
    return [seed, *range(LENGTH - 1)]


def put(path, age=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody's")
    os.utime(path, (time.time() - age,) * 2)
    return path


def aged(path):
    """A file that was written three days ago."""
    os.utime(path, (time.time() - 3 * 24 * 3600,) * 2)
    return path


def snapshot(*paths):
    """All that is below some paths: kinds, contents and times, without following links."""
    found = {}
    for top in paths:
        below = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else []
        for path in [top, *below]:
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_dir():
                found[path] = "folder"
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[path] = (digest, path.stat().st_mtime_ns, path.stat().st_mode)
    return found


def fill_past_the_limit(folder):
    """Save sequences until the oldest have to go."""
    one = PromptCache(folder.parent / "size", lambda: "model")
    one.save(tokens(1), filled())
    limit = 2 * one.nbytes + 1000
    small = PromptCache(folder, lambda: "model", limit=limit)
    for seed in range(1, 8):
        small.save(tokens(seed), filled())
        time.sleep(0.01)
    assert small.find(tokens(1), filled()) is None
    assert small.find(tokens(7), filled()) is not None
    assert small.nbytes <= limit


def test_strangers_of_every_age_and_name_stay_and_our_own_old_files_go(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    cache = PromptCache(folder, lambda: "model")
    cache.save(tokens(0), filled())
    model_folder = OwnedFolder(folder).model_folder(cache.key)
    strangers = [
        put(place / f"{age}" / name, age)
        for age in AGES
        for place, names in ((folder, STRANGERS), (elsewhere, STRANGERS))
        for name in names
    ]
    strangers += [put(folder / name, AGES[1]) for name in STRANGERS]
    strangers += [
        put(inside / name, AGES[2])
        for name in NEARLY_OURS
        for inside in (folder / FOLDER_NAME, model_folder, folder / FOLDER_NAME / "model-0123")
    ]
    # Folders and links with names exactly like ours.
    target = put(elsewhere / "target", AGES[2])
    links = [
        model_folder / sequence_name(DIGEST[::-1]),
        model_folder / temporary_name(),
        folder / "link-to-file",
    ]
    for link in links:
        link.symlink_to(target)
    put(elsewhere / "linked" / sequence_name(DIGEST), AGES[2])
    put(elsewhere / "linked" / temporary_name(), AGES[2])
    folder_links = [folder / FOLDER_NAME / MODEL, folder / "link"]
    for link in folder_links:
        link.symlink_to(elsewhere / "linked", target_is_directory=True)
    (model_folder / sequence_name("f" * 64)).mkdir()
    strangers += [*links, *folder_links, model_folder / sequence_name("f" * 64), elsewhere]
    before = snapshot(*strangers)

    abandoned = [
        aged(put(model_folder / temporary_name())),
        aged(put(folder / FOLDER_NAME / ("model-" + "a" * 32) / temporary_name())),
    ]
    old_sequence = aged(put(folder / FOLDER_NAME / ("model-" + "b" * 32) / sequence_name(DIGEST)))
    young = put(model_folder / temporary_name())
    fill_past_the_limit(folder)

    assert snapshot(*strangers) == before
    assert not any(path.exists() for path in [*abandoned, old_sequence])
    assert young.exists(), "another process may be writing it"


@pytest.mark.parametrize("taken", ["folder", "empty folder", "file", "link"])
def test_a_sub_folder_without_the_marker_is_somebody_elses(tmp_path, taken):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    own = folder / FOLDER_NAME
    folder.mkdir()
    elsewhere.mkdir()
    put(elsewhere / MARKER_NAME)
    put(elsewhere / MODEL / temporary_name(), AGES[2])
    match taken:
        case "folder":
            put(own / MODEL / sequence_name(DIGEST), AGES[2])
            put(own / MODEL / temporary_name(), AGES[2])
        case "empty folder":
            own.mkdir()
        case "file":
            put(own)
        case "link":
            own.symlink_to(elsewhere, target_is_directory=True)
    before = snapshot(folder, elsewhere)
    cache = PromptCache(folder, lambda: "model", limit=1)
    with pytest.warns(RuntimeWarning, match="was not kept"):
        cache.save(tokens(0), filled())
    assert cache.find(tokens(0), filled()) is None
    assert cache.nbytes == 0
    assert snapshot(folder, elsewhere) == before


def test_a_model_folder_only_gains_the_sub_folder(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("llama-2", seed=1), folder)
    for path in folder.iterdir():
        os.utime(path, (time.time() - AGES[1],) * 2)
    before = snapshot(*folder.iterdir())
    fill_past_the_limit(folder)
    own = folder / FOLDER_NAME
    assert snapshot(*(path for path in folder.iterdir() if path != own)) == before
    assert own.stat().st_mode & 0o077 == 0, "prompts are for their owner alone"


def test_a_home_folder_is_found_by_its_tilde(tiny_folder, tmp_path, monkeypatch):
    checkpoint = read_checkpoint(tiny_folder())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / ".ssh" / "id", AGES[2])
    put(tmp_path / "model.safetensors", AGES[2])
    before = snapshot(*tmp_path.iterdir())
    cache = prompt_cache_for(checkpoint, LoadSettings(prompt_cache="~"), kv_bits=16)
    cache.save(tokens(0), filled())
    assert (tmp_path / FOLDER_NAME / MARKER_NAME).is_file()
    assert not (tmp_path / "~").exists()
    (tmp_path / FOLDER_NAME).rename(tmp_path.parent / f"{tmp_path.name}-cache")
    assert snapshot(*tmp_path.iterdir()) == before


def test_the_home_of_nobody_is_refused(tiny_folder):
    settings = LoadSettings(prompt_cache="~nobody-of-this-name/prompts")
    with pytest.raises(ConfigError, match="home directory"):
        prompt_cache_for(read_checkpoint(tiny_folder()), settings, kv_bits=16)


def test_only_our_own_files_can_be_deleted(tmp_path):
    owned = OwnedFolder(tmp_path)
    folder = owned.create("a" * 32)
    own = put(folder / sequence_name(DIGEST))
    strangers = [
        put(tmp_path / sequence_name(DIGEST)),
        put(tmp_path / MODEL / sequence_name(DIGEST)),
        put(folder / "model.safetensors"),
        put(folder / "deeper" / sequence_name(DIGEST)),
    ]
    for stranger in strangers:
        with pytest.raises(PermissionError, match="not a file of the prompt cache"):
            owned.delete(stranger)
        assert stranger.exists()
    owned.delete(own)
    owned.delete(own)
    assert not own.exists()


def test_a_folder_that_is_deleted_meanwhile_is_empty(tmp_path):
    cache = PromptCache(tmp_path, lambda: "model")
    cache.save(tokens(0), filled())
    assert cache.nbytes > 0
    shutil.rmtree(tmp_path / FOLDER_NAME)
    assert cache.nbytes == 0
    assert cache.find(tokens(0), filled()) is None
    cache.save(tokens(0), filled())
    assert cache.find(tokens(0), filled()) is not None


def test_folders_that_are_made_at_once_are_one(tmp_path):
    first, second = OwnedFolder(tmp_path), OwnedFolder(tmp_path)
    assert first.create("a" * 32) == second.create("a" * 32)
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER_NAME]


def test_all_of_it_is_for_the_owner_alone_whatever_the_umask(tmp_path):
    with no_umask():
        PromptCache(tmp_path / "new" / "folder", lambda: "model").save(tokens(0), filled())
    assert open_to_others(tmp_path) == []


def test_a_full_disk_costs_a_warning_and_leaves_what_was_kept(tmp_path):
    cache = PromptCache(tmp_path, lambda: "model")
    cache.save(tokens(0), filled())
    before = snapshot(*tmp_path.iterdir())
    with file_size_limit(1000), pytest.warns(RuntimeWarning, match="no space left"):
        cache.save(tokens(1), filled())
    assert snapshot(*tmp_path.iterdir()) == before
