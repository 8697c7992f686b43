"""Downloads from a stand-in for the Hub on this machine: what is fetched, kept, and said."""

import numpy as np
import pytest
from support.litgpt_files import write_litgpt
from support.meta_files import write_meta
from support.mistral_files import write_mistral
from support.processes import answer_of
from support.stand_in_hub import Hub, hub_environment, paths_asked, serving_hub
from support.tiny import CONFIGS, random_tensors, write_model, write_tokenizer
from support.torch_files import write_arrays

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with a few repositories."""
    root = tmp_path_factory.mktemp("hub")
    whole = write_model(root / "whole", LLAMA, shards=2)
    for name in ("modeling_evil.py", "pytorch_model.bin", "README.md", "weights.gguf"):
        (whole / name).write_text("not wanted")
    old = write_model(root / "old", LLAMA)
    (old / "model.safetensors").unlink()
    (old / "additional_chat_templates").mkdir()
    (old / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    write_arrays(
        old / "pytorch_model.bin",
        {name: value.astype(np.float32) for name, value in random_tensors(LLAMA).items()},
    )
    bare = root / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    meta = write_meta(root / "meta", LLAMA | {"vocab_size": 448}, params={"hidden_dim": 128})
    write_tokenizer(write_litgpt(root / "lit", LLAMA))
    repositories = {
        "owner/whole": whole,
        "owner/lit": root / "lit",
        "owner/meta": meta,
        "owner/mistral": write_mistral(root / "mistral", files=2),
        "owner/old": old,
        "owner/bare": bare,
        "owner/gated": whole,
    }
    with serving_hub(repositories) as server:
        yield server


RUN = """
import json, resource, signal, sys
from edgellm.errors import EdgeLLMError
from edgellm.hub.download import download
answers = []
for call in json.loads(sys.argv[1]):
    try:
        if limit := call.pop("limit", 0):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        folder = download(**call)
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = sorted(str(path.relative_to(folder)) for path in files)
        answers.append(["folder", str(folder), names])
    except EdgeLLMError as error:
        answers.append([type(error).__name__, error.message, error.hint])
print(json.dumps(answers))
"""


def ask(address, home, *calls, offline=False, token=None):
    """What ``download`` answers to each call, in one fresh interpreter."""
    environment = hub_environment(address, home, offline=offline)
    if token:
        environment["HF_TOKEN"] = token
    return answer_of(RUN, calls, environment)


class Storage(Hub):
    """Holds the files of a repository, as the Hub's storage elsewhere does; asks for no token."""

    def reply(self, path):
        folder = self.server.state["repositories"]["owner/whole"]
        self.answer(200, (folder / path.strip("/")).read_bytes())


def test_a_token_is_for_the_hub_and_not_for_the_storage_that_it_redirects_to(hub, tmp_path):
    repositories = hub.state["repositories"]
    with serving_hub(repositories, Storage) as storage:

        class Redirecting(Hub):
            def file(self, path):
                _, content, headers = super().file(path)
                headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": headers["ETag"]}
                return 302, b"", headers | {"Location": f"{storage.address}/{path.name}"}

        with serving_hub(repositories, Redirecting) as redirecting:
            call = {"repository": "owner/whole"}
            (answer,) = ask(redirecting.address, tmp_path, call, token="hf_secret")
    assert answer[0] == "folder", answer
    assert {token for _, token in redirecting.state["asked"]} == {"Bearer hf_secret"}
    assert {token for _, token in storage.state["asked"]} == {None}, "the redirect is followed"


def test_a_repository_is_fetched_once_and_without_its_programs(hub, tmp_path):
    paths_asked(hub)
    lit = {"repository": "owner/lit", "torch_files": True}
    own = {"repository": "owner/mistral", "torch_files": True}
    first, old, litgpt, mistral = ask(
        hub.address,
        tmp_path,
        {"repository": "owner/whole"},
        {"repository": "owner/old", "torch_files": True},
        lit,
        own,
    )
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert first[2] == [
        "config.json",
        *shards,
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert old[2] == [
        "additional_chat_templates/rag.jinja",
        "config.json",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert litgpt[2][:2] == ["lit_model.pth", "model_config.yaml"]
    assert mistral[2] == [
        "consolidated-00001-of-00002.safetensors",
        "consolidated-00002-of-00002.safetensors",
        "consolidated.safetensors.index.json",
        "params.json",
        "tekken.json",
    ]
    assert not any("evil" in path or "gguf" in path for path in paths_asked(hub))
    assert ask(hub.address, tmp_path, {"repository": "owner/whole"}) == [first]
    assert not any("/resolve/" in path for path in paths_asked(hub))
    whole = {"repository": "owner/whole"}
    again = ask(hub.address, tmp_path, whole, lit, own, offline=True)
    assert again == [first, litgpt, mistral]
    assert paths_asked(hub) == []


def test_what_fails_is_said(hub, tmp_path):
    calls = {
        "missing": {"repository": "nobody/nothing"},
        "gated": {"repository": "owner/gated"},
        "revision": {"repository": "owner/whole", "revision": "v9"},
        "broken": {"repository": "broken/hub"},
        "old token": {"repository": "old/token"},
        "name": {"repository": "owner/--x"},
        "no weights": {"repository": "owner/bare"},
        "no weights at all": {"repository": "owner/bare", "torch_files": True},
        "torch alone": {"repository": "owner/old"},
        "full": {"repository": "owner/whole", "limit": 20_000},
    }
    answers = dict(zip(calls, ask(hub.address, tmp_path, *calls.values()), strict=True))
    said = {
        "missing": ("ModelNotFoundError", "there is no nobody/nothing on the Hub", "hf auth login"),
        "gated": ("DownloadError", "is gated", "accept its terms"),
        "revision": ("ModelNotFoundError", "no revision v9", "its page lists them"),
        "broken": ("DownloadError", "the Hub answered 503", "later"),
        "old token": ("DownloadError", "the Hub answered 401", "HF_TOKEN"),
        "name": ("ModelNotFoundError", "not a valid name", "owner/name"),
        "no weights": (
            "ModelNotFoundError",
            "holds no model*.safetensors",
            "edgellm convert owner/bare",
        ),
        "no weights at all": ("ModelNotFoundError", "nor pytorch_model*.bin", "was made from"),
        "torch alone": (
            "ModelNotFoundError",
            "holds no model*.safetensors",
            "edgellm convert owner/old",
        ),
        "full": ("DownloadError", "no space left", "HF_HOME"),
    }
    for case, (kind, fact, hint) in said.items():
        assert answers[case][0] == kind, answers[case]
        assert fact in answers[case][1]
        assert hint in answers[case][2]
        assert "\n" not in answers[case][1]


def test_no_network_and_offline_are_told_apart(tmp_path):
    call = {"repository": "owner/whole"}
    nobody = "http://127.0.0.1:9"
    assert ask(nobody, tmp_path, call)[0][:2] == [
        "DownloadError",
        "owner/whole is not in the cache and the Hub cannot be reached",
    ]
    assert "HF_HUB_OFFLINE" in ask(nobody, tmp_path, call, offline=True)[0][1]


def test_a_hub_id_is_converted(hub, tmp_path):
    code = (
        "import json, sys; from edgellm.converters import convert\n"
        "made = [convert(*words).dtype for words in json.loads(sys.argv[1])]\n"
        "print(json.dumps(made))"
    )
    places = {f"owner/{name}": tmp_path / name for name in ("old", "meta")}
    asked = [[name, str(place)] for name, place in places.items()]
    environment = hub_environment(hub.address, tmp_path / "home")
    assert answer_of(code, asked, environment) == ["float32", "float32"]
    for place in places.values():
        assert (place / "model-head.safetensors").exists()
