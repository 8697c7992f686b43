"""Files that no conversion has written, beside a model or in its place, stay as they are."""

import hashlib
import json
import os

import pytest
from support.tiny import CONFIGS, write_model

from edgellm.checkpoint.folder import CHECKSUMS, MANIFEST, open_folder
from edgellm.converters import convert
from edgellm.converters.replaced_model import ReplacedModel
from edgellm.errors import ConversionError

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny") / "source", LLAMA)


@pytest.fixture(scope="module")
def model(source, tmp_path_factory):
    return convert(source, tmp_path_factory.mktemp("tiny") / "model", bits=8).path


def snapshot(folder):
    """Every file, link and folder under a folder, and what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def copy(folder, made):
    made.mkdir()
    for file in folder.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


def put_strangers(folder, elsewhere):
    """Put what a person may have into a folder: notes, a folder, links; return their snapshot."""
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("years of work")
    (folder / "notes.txt").write_text("what I found")
    (folder / "photographs").mkdir()
    (folder / "photographs" / "cat.jpg").write_bytes(b"\xff\xd8 a cat")
    (folder / "elsewhere").symlink_to(elsewhere)
    (folder / "nowhere").symlink_to(folder / "lost")
    names = ("notes.txt", "photographs", "elsewhere", "nowhere")
    return {
        name: value for name, value in snapshot(folder).items() if name.split("/")[0] in names
    } | snapshot(elsewhere)


def test_a_persons_files_outlive_the_model_that_is_replaced(source, model, tmp_path):
    made = copy(model, tmp_path / "made")
    strangers = put_strangers(made, tmp_path / "elsewhere")
    convert(source, made, force=True)
    convert(source, tmp_path / "plain")
    after = snapshot(made) | snapshot(tmp_path / "elsewhere")
    assert after == strangers | snapshot(tmp_path / "plain")
    assert {path.name for path in tmp_path.iterdir()} == {"made", "plain", "elsewhere"}


def a_file_that_the_new_model_brings(made):
    """The person's own license, in a folder whose model had none."""
    (made / "LICENSE").write_text("mine")


def a_link_in_place_of_a_weight_file(made):
    (made / "model-head.safetensors").rename(made.parent / "precious")
    (made / "model-head.safetensors").symlink_to(made.parent / "precious")


def no_record_of_what_is_ours(made):
    (made / CHECKSUMS).unlink()


def a_damaged_record_of_what_is_ours(made):
    (made / CHECKSUMS).write_text("{")


def an_old_folder_that_nobody_knows(made):
    (made.parent / "made.edgellm.replaced").mkdir()
    (made.parent / "made.edgellm.replaced" / "cat.jpg").write_text("a cat")


REFUSED = [
    a_file_that_the_new_model_brings,
    a_link_in_place_of_a_weight_file,
    no_record_of_what_is_ours,
    a_damaged_record_of_what_is_ours,
    an_old_folder_that_nobody_knows,
]


@pytest.mark.parametrize("put", REFUSED, ids=lambda put: put.__name__)
def test_a_folder_with_what_could_be_lost_is_not_replaced(model, tmp_path, put):
    source = write_model(tmp_path / "source", LLAMA)
    (source / "LICENSE").write_text("theirs")
    put(copy(model, tmp_path / "made"))
    before = snapshot(tmp_path)
    with pytest.raises(ConversionError, match=r"will not be replaced|in the way") as caught:
        convert(source, tmp_path / "made", force=True)
    assert caught.value.hint
    assert snapshot(tmp_path) == before


def a_whole_model_of_that_name(partial, model):
    copy(model, partial)


def a_manifest_of_somebody_elses(partial, model):
    copy(model, partial)
    (partial / MANIFEST).write_text(json.dumps({"format": 1, "files": {"cat.jpg": {}}}))


def a_damaged_manifest(partial, model):
    copy(model, partial)
    (partial / MANIFEST).write_text("{")


def a_manifest_that_is_a_link(partial, model):
    stop(partial)
    (partial / MANIFEST).rename(partial.parent / "manifest")
    (partial / MANIFEST).symlink_to(partial.parent / "manifest")


def a_strangers_file_beside_ours(partial, model):
    stop(partial)
    (partial / "cat.jpg").write_text("a cat")


def a_link_under_our_name(partial, model):
    stop(partial)
    (partial.parent / "precious").write_text("years of work")
    (partial / "model-layer-00001.safetensors").symlink_to(partial.parent / "precious")


def a_folder_under_our_name(partial, model):
    stop(partial)
    (partial / "model-layer-00001.safetensors").mkdir()
    (partial / "model-layer-00001.safetensors" / "thesis.tex").write_text("years of work")


def a_link_to_a_folder(partial, model):
    copy(model, partial.with_name("elsewhere"))
    partial.symlink_to("elsewhere")


def a_file(partial, model):
    partial.write_text("half a download")


IN_THE_WAY = [
    a_whole_model_of_that_name,
    a_manifest_of_somebody_elses,
    a_damaged_manifest,
    a_manifest_that_is_a_link,
    a_strangers_file_beside_ours,
    a_link_under_our_name,
    a_folder_under_our_name,
    a_link_to_a_folder,
    a_file,
]


def stop(partial):
    """Leave a conversion of this source half done, as Ctrl-C would."""

    def step(it):
        if it.file == "model-layer-00001.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(partial.parent / "source", partial.with_name("made"), progress=step)


@pytest.mark.parametrize("put", IN_THE_WAY, ids=lambda put: put.__name__)
@pytest.mark.parametrize("bits", [4, 8])  # the conversion that was stopped, and another one
def test_what_lies_where_a_conversion_grows_is_not_touched(model, tmp_path, put, bits):
    source = write_model(tmp_path / "source", LLAMA)
    put(tmp_path / "made.partial", model)
    before = snapshot(tmp_path)
    with pytest.raises(ConversionError, match=r"made\.partial (is in the way|cannot be)") as caught:
        convert(source, tmp_path / "made", bits=bits)
    assert caught.value.hint
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_what_comes_to_the_destination_meanwhile_is_kept(source, model, tmp_path, force):
    made = tmp_path / "made"

    def step(it):
        if it.file == "model-head.safetensors" and not made.exists():
            made.mkdir()
            (made / "cat.jpg").write_text("a cat")

    with pytest.raises(ConversionError, match=r"already exists|will not be replaced"):
        convert(source, made, progress=step, force=force)
    assert snapshot(made) == {"cat.jpg": hashlib.sha256(b"a cat").hexdigest()}
    made.rename(tmp_path / "cat")
    assert convert(source, made, force=force).kept_files == 4
    open_folder(made)


def test_what_has_come_under_a_name_of_a_replaced_folder_stays_there(model, tmp_path):
    made = copy(model, tmp_path / "made")
    old = ReplacedModel(made, [])
    copy(model, old.aside)
    for folder, text in ((made, "new"), (old.aside, "old")):
        (folder / "notes.txt").write_text(text)
    old.recover()
    assert (made / "notes.txt").read_text() == "new"
    assert {path.name for path in old.aside.iterdir()} == {"notes.txt", CHECKSUMS}
    (made / "notes.txt").unlink()
    old.recover()
    assert (made / "notes.txt").read_text() == "old"
    assert not old.aside.exists()
