#!/bin/sh
# flwr 1.42.0 (PyPI): `flwr run .` comments out a section of the project's pyproject.toml, and leaves
# processes running.
#
# One would expect: a command that runs an app leaves the project's files as they are, and ends with
# what it has started, or asks first.
#
# What happens: where pyproject.toml has [tool.flwr.federations], as projects for Flower before 1.26
# have, its lines become comments, and settings move to config.toml in FLWR_HOME; the file is written
# in place, not under another name first. A SuperLink and a SuperExec are started in the background,
# detached, and stay when the command has ended.
#
# Output seen (x86-64, Python 3.11):
#   the section is now: # [tool.flwr.federations]
#   processes that stay: flower-superexec flower-superlink
#
# For users: keep pyproject.toml under version control; end what stays with kill.
set -eu
folder=$(mktemp -d)
stays() { # of this folder alone
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" = $$ ] || ! grep -qsa "FLWR_HOME=$folder/home" "$process/environ" ||
            echo "${process#/proc/}"
    done
}
trap 'for one in $(stays) $(stays); do kill "$one" 2>/dev/null || true; done; sleep 2; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check flwr==1.42.0
export FLWR_TELEMETRY_ENABLED=0 FLWR_HOME="$folder/home" PATH="$folder/venv/bin:$PATH"
mkdir "$folder/app"
cd "$folder/app"
cat > pyproject.toml <<'TOML'
[project]
name = "app"
version = "1.0.0"
description = ""
license = { file = "LICENSE" }
dependencies = ["flwr>=1.42.0,<1.43.0"]
[tool.flwr.app]
publisher = "nobody"
fab-format-version = 1
flwr-version-target = "1.42.0"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
[tool.flwr.federations]
default = "local-simulation"
[tool.flwr.federations.local-simulation]
options.num-supernodes = 2
TOML
cat > app.py <<'PYTHON'
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()
PYTHON
echo none > README.md
echo Apache-2.0 > LICENSE
cp pyproject.toml before.toml
timeout 120 flwr run . > "$folder/log" 2>&1 || true
if cmp -s pyproject.toml before.toml; then
    cat "$folder/log"
    echo "the project is as it was"
    exit 1
fi
echo "the section is now: $(grep 'federations\]' pyproject.toml)"
names=$(for one in $(stays); do
    grep -oa 'flower-super[a-z]*' "/proc/$one/cmdline" 2>/dev/null || true
done | sort -u | xargs)
echo "processes that stay: $names"
[ "$names" = "flower-superexec flower-superlink" ]
