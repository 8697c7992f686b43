#!/bin/sh
# huggingface-hub 2.4.0 (PyPI): snapshot_download of a repository that is whole in the cache waits
# without end where the Hub's address takes connections and does not answer; etag_timeout and
# HF_HUB_ETAG_TIMEOUT do not bound it.
#
# One would expect: the timeout that the function takes ("how many seconds to wait for the server to
# send data before giving up") bounds each of its questions, after which the cache is used, as it is
# where the connection is refused.
#
# What happens: its first question (repo_info, which commit a branch is at) goes through a client
# made with timeout=None, and is asked without one. Only the questions about single files have it.
#
# Output seen (x86-64, Python 3.11):
#   nobody listens:               the cache's folder after 1 s
#   a server that says nothing:   still waiting after 15 s, with etag_timeout=2
#
# For users: ask HfApi().model_info(..., timeout=S) first, and call snapshot_download with
# local_files_only=True where that fails; no timeout of the HTTP library bounds looking up a name.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check huggingface-hub==2.4.0
cd "$folder"
cat > ask.py <<'PYTHON'
from huggingface_hub import snapshot_download

print(snapshot_download("owner/name", etag_timeout=2))
PYTHON
venv/bin/python - <<'PYTHON'
import os
import pathlib
import socket
import subprocess
import sys
import time

commit = "a" * 40
repository = pathlib.Path("home/hub/models--owner--name")
snapshot = repository / "snapshots" / commit
snapshot.mkdir(parents=True)
(repository / "refs").mkdir()
(repository / "refs" / "main").write_text(commit)
(snapshot / "config.json").write_text("{}")


def ask(port):
    """Return the seconds until the answer; None: there was none in 15 s."""
    environment = os.environ | {
        "HF_HOME": "home", "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_ETAG_TIMEOUT": "2",
    }
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "ask.py"], env=environment, capture_output=True, text=True, timeout=15
        )
    except subprocess.TimeoutExpired:
        return None
    assert commit in done.stdout, done.stderr
    return time.monotonic() - begun


with socket.socket() as closed:
    closed.bind(("127.0.0.1", 0))
    port = closed.getsockname()[1]
refused = ask(port)
print(f"nobody listens:               the cache's folder after {refused:.0f} s")
with socket.create_server(("127.0.0.1", 0)) as silent:
    waited = ask(silent.getsockname()[1])
assert waited is None, f"an answer after {waited} s: the finding is out of date"
print("a server that says nothing:   still waiting after 15 s, with etag_timeout=2")
PYTHON
