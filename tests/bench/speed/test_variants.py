"""The files that backends open: other bits of a model, made once, and files that are given."""

import pytest

from edgellm.bench.speed.variants import make_model, prepare_variant
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.synthetic import synthesize
from edgellm.errors import BackendError, ModelNotFoundError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def test_bits_are_made_once_of_a_16_bit_model(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    made = prepare_variant(str(folder), 4, "edgellm")
    assert (made.bits, made.vocabulary) == (4, read_checkpoint(folder).config.vocab_size)
    before = made.path.stat().st_mtime_ns
    assert prepare_variant(str(folder), 4, "edgellm") == made
    assert made.path.stat().st_mtime_ns == before
    assert prepare_variant(str(folder), 16, "edgellm").path == folder
    with pytest.raises(BackendError, match="is stored with 4 bits"):
        prepare_variant(str(made.path), 8, "edgellm")


def test_a_file_for_a_backend_that_reads_folders(tmp_path):
    with pytest.raises(BackendError, match="opens no GGUF"):
        prepare_variant(str(tmp_path / "x.gguf"), None, "edgellm")
    with pytest.raises(ModelNotFoundError):
        prepare_variant(str(tmp_path / "x.gguf"), None, "llama.cpp")


def test_a_model_that_another_run_finishes_first_is_the_one(folder, tmp_path, monkeypatch):
    made = tmp_path / "made"
    # the other run's model comes when our command has just begun
    (tmp_path / "sitecustomize.py").write_text(
        f"import shutil\nshutil.copytree({str(folder)!r}, {str(made)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert make_model(made, "synth", "tiny-llama", str(made), "--bits", "16") == made
    assert read_checkpoint(made).config == read_checkpoint(folder).config
