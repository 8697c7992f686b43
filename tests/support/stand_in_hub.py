"""A stand-in for the Hub on this machine: what a download asks, answered from folders."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from support.local_server import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Answers what a download asks: a branch's commit, a commit's files, a file's bytes."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.server.state["asked"].append((path, self.headers["Authorization"]))
        self.reply(path)

    def reply(self, path):
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        folder = self.server.state["repositories"].get(name)
        answers = {"broken/hub": 503, "old/token": 401}
        if name in answers:
            self.answer(answers[name], b"")
        elif folder is None:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif parts[0] != "api":
            gated = name == "owner/gated"
            self.answer(
                *(
                    (403, b"", {"X-Error-Code": "GatedRepo"})
                    if gated
                    else self.file(folder.joinpath(*parts[4:]))
                )
            )
        elif parts[4:5] == ["revision"] and parts[5] not in {"main", COMMIT}:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif parts[4:5] != ["tree"]:
            siblings = [{"rfilename": name} for name in paths_in(folder)]
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        else:
            files = [
                {
                    "type": "file",
                    "path": name,
                    "size": (folder / name).stat().st_size,
                    "oid": hashlib.sha1((folder / name).read_bytes()).hexdigest(),
                }
                for name in paths_in(folder)
            ]
            self.answer(200, json.dumps(files).encode())

    def file(self, path):
        if not path.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
        content = path.read_bytes()
        return (
            200,
            content,
            {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT},
        )

    def answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def paths_in(folder):
    """The paths of all files in a folder, as the Hub tells them."""
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]


def serving_hub(repositories, handler=Hub):
    """A server with folders of repositories by name; its ``state`` tells what it is asked.

    That is in ``asked``: paths, each with what came as authorization.
    """
    return serving(handler, repositories=repositories, asked=[])


def paths_asked(server):
    """The paths that a server is asked for since it began, or since the last time."""
    asked = server.state["asked"]
    paths = [path for path, _ in asked]
    asked.clear()
    return paths


def hub_environment(address, home, *, offline=False):
    """The environment of a process whose Hub is at an address, and whose caches are in a folder."""
    return {
        "PATH": "/usr/bin:/bin",
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "XDG_CACHE_HOME": str(home / "ours"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
