"""Uploads to a stand-in for the Hub on this machine, and looks at a repository beforehand."""

import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler

import pytest
from support.folders import LLAMA
from support.local_server import serving
from support.processes import results_of
from support.tiny import write_model

from edgellm.converters import convert
from edgellm.hub.model_card import model_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "a" * 34


class Hub(BaseHTTPRequestHandler):
    """What an upload asks of the Hub, and what looking a repository through asks."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            self.answer(
                *(
                    (200, {"name": "owner", "type": "user"})
                    if self.known()
                    else (401, {"error": "who?"})
                )
            )
        elif "/resolve/" in path:
            name, _, rest = path.partition("/resolve/")
            files = self.server.state["files"].get(name.strip("/"))
            if files is None:
                self.answer(404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
            else:
                self.file(files.get(rest.partition("/")[2]))
        elif path.startswith("/api/models/"):
            name = (
                path.removeprefix("/api/models/").partition("/revision/")[0].partition("/tree/")[0]
            )
            files = self.server.state["files"].get(name)
            if files is None:
                self.answer(404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
            elif "/tree/" in path:
                self.answer(
                    200,
                    [
                        {"type": "file", "path": file, "size": len(content), "oid": "a" * 40}
                        for file, content in files.items()
                    ],
                )
            else:
                self.answer(
                    200,
                    {
                        "id": name,
                        "sha": COMMIT,
                        "siblings": [{"rfilename": file} for file in files],
                    },
                )
        else:
            self.answer(404, {})

    def do_POST(self):
        body, path, state = self.body(), self.path, self.server.state
        if not self.known():
            self.answer(401, {"error": "who?"})
        elif state.get("refuses"):
            self.answer(state["refuses"], {"error": "no"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            state["created"] = asked
            self.answer(
                200, {"url": f"{self.server.address}/{asked['organization']}/{asked['name']}"}
            )
        elif path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(
                200, {"files": [file | {"shouldIgnore": False, "oid": None} for file in files]}
            )
        elif path.endswith("/info/lfs/objects/batch"):
            href = f"{self.server.address}/lfs/"
            objects = [
                {
                    "oid": item["oid"],
                    "size": item["size"],
                    "actions": {"upload": {"href": href + item["oid"]}},
                }
                for item in json.loads(body)["objects"]
            ]
            self.answer(
                200, {"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json"
            )
        elif path.endswith("/commit/main"):
            state["commits"].append([json.loads(line) for line in body.splitlines()])
            self.answer(
                200,
                {
                    "commitUrl": f"{self.server.address}/owner/tiny/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": True,
                },
            )
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        else:
            self.answer(404, {})

    def do_PUT(self):
        self.server.state["lfs"][self.path.rpartition("/")[2]] = self.body()
        self.answer(200, {})

    def known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def file(self, content):
        if content is None:
            self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        begin, end = 0, len(content)
        asked = self.headers.get("Range")
        if asked:
            begin, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(begin), min(int(last) + 1, len(content))
            self.server.state["ranges"].append(end - begin)
        part = content[begin:end]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def answer(self, status, value, headers=None, kind="application/json"):
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, said in {
            "Content-Length": str(len(content)),
            "Content-Type": kind,
            **(headers or {}),
        }.items():
            self.send_header(name, said)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    with serving(Hub, commits=[], lfs={}, files={}, ranges=[]) as server:
        yield server


def run_commands(hub, home, *commands):
    """Run commands, each a token and its words, against the stand-in; as ``results_of``."""
    environment = {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    tokens, words = zip(*((token, command) for token, *command in commands), strict=True)
    return results_of(words, environment, [{"HF_TOKEN": token or ""} for token in tokens])


def test_a_conversion_is_uploaded_with_its_card(hub, tmp_path):
    source = write_model(tmp_path / "a private name", LLAMA)
    convert(source, tmp_path / "made")
    (tmp_path / "made" / "secret.txt").write_text("a person's")
    command = ["convert", source, tmp_path / "made", "--bits", "4", "--force"]
    command += ["--upload", "owner/tiny", "--json"]
    ((code, out, err),) = run_commands(hub, tmp_path / "home", [TOKEN, *command])
    assert code == 0, err
    assert "secret.txt" in [file.name for file in (tmp_path / "made").iterdir()]
    assert json.loads(out)["uploaded"].endswith(f"/owner/tiny/commit/{COMMIT}")
    assert hub.state["created"]["name"] == "tiny"
    (commit,) = hub.state["commits"]
    kinds = {line["value"]["path"]: line["key"] for line in commit if line["key"] != "header"}
    ours = {file.name for file in (tmp_path / "made").iterdir()} - {"secret.txt"}
    assert kinds.keys() == ours, "what a person has put beside the model stays there"
    assert {kind for file, kind in kinds.items() if file.endswith(".safetensors")} == {"lfsFile"}
    for file in (tmp_path / "made").glob("*.safetensors"):
        content = file.read_bytes()
        assert hub.state["lfs"][hashlib.sha256(content).hexdigest()] == content
    card = (tmp_path / "made" / "README.md").read_text()
    assert "library_name: mlx" in card
    assert "edgellm convert SOURCE DEST --bits 4" in card
    assert "edgellm chat owner/tiny" in card
    assert "4 bits in groups of 64" in card
    assert "private name" not in card


def test_a_persons_files_in_the_folder_are_not_uploaded(hub, tmp_path):
    made = tmp_path / "made"
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, made)
    (made / "notes.txt").write_text("what I found")
    (made / "checkpoints").mkdir()
    (made / "checkpoints" / "optimizer.pt").write_text("weeks of work")
    command = ["convert", source, made, "--bits", "8", "--force", "--upload", "owner/tiny"]
    ((code, _, err),) = run_commands(hub, tmp_path / "home", [TOKEN, *command])
    assert code == 0, err
    assert (made / "notes.txt").exists()
    (commit,) = hub.state["commits"]
    uploaded = {line["value"]["path"] for line in commit if line["key"] != "header"}
    assert uploaded == {file.name for file in made.iterdir()} - {"notes.txt", "checkpoints"}


def test_nothing_is_made_for_who_may_not_upload(hub, tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    cases = [
        (None, "owner/tiny", "needs a Hub token"),
        ("hf_" + "b" * 34, "owner/tiny", "does not let you write"),
        (TOKEN, "no name", "not a valid name of a Hub repository"),
    ]
    commands = [
        (token, "convert", source, tmp_path / "made", "--upload", name) for token, name, _ in cases
    ]
    results = run_commands(hub, tmp_path / "home", *commands)
    for (code, _, err), (_, _, said) in zip(results, cases, strict=True):
        assert code in (1, 2)
        assert said in err
        assert "hint: " in err
    assert not (tmp_path / "made").exists()


def test_a_refusal_leaves_the_folder_and_says_how_to_go_on(hub, tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    hub.state["refuses"] = 403
    command = [TOKEN, "convert", source, tmp_path / "made", "--upload", "other/tiny"]
    ((code, _, err),) = run_commands(hub, tmp_path / "home", command)
    assert code == 1
    assert "does not let you write to other/tiny" in err
    assert (tmp_path / "made" / "model-head.safetensors").exists()


def test_the_card_tells_the_base_and_every_form(tmp_path):
    odd = LLAMA | {"intermediate_size": 160}
    report = convert(write_model(tmp_path / "source", odd), tmp_path / "made", bits=3, report=True)
    card = model_card(report, "owner/tiny", base="meta/base", settings="--bits 3")
    assert "base_model: meta/base" in card
    assert "edgellm convert meta/base DEST --bits 3" in card
    assert "| 4 matrices | 3 bits in groups of 32 |" in card
    assert "| most matrices | 3 bits in groups of 64 |" in card
    plain = convert(tmp_path / "source", tmp_path / "plain", bits=16)
    card = model_card(report, "owner/tiny", base="meta/base-GGUF:Q4_0", settings="")
    assert "base_model: meta/base-GGUF\n" in card
    assert "edgellm convert meta/base-GGUF:Q4_0 DEST" in card
    assert "| type | float32 |" in model_card(plain, "owner/tiny", base=None, settings="")


def test_a_repository_is_planned_for_before_it_is_downloaded(hub, tmp_path):
    convert(write_model(tmp_path / "source", LLAMA), tmp_path / "made")
    hub.state["files"]["owner/made"] = {
        file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()
    }
    models = ("owner/made", tmp_path / "made", "owner/nothing")
    there, here, nothing = run_commands(
        hub, tmp_path / "home", *[(TOKEN, "info", model, "--json") for model in models]
    )
    assert there[0] == 0, there
    there, here = json.loads(there[1]), json.loads(here[1])
    for key in ("parameters", "bytes", "quantization", "num_hidden_layers", "dtype"):
        assert there[key] == here[key]
    assert hub.state["ranges"]  # parts of files, not the files
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert nothing[0] == 1
    assert "there is no owner/nothing on the Hub" in nothing[2]
