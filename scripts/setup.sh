#!/bin/sh
# Makes .venv, or brings it up to date, and does nothing where it is already as pyproject.toml wants it.
#
#   sh scripts/setup.sh python   print the Python that .venv would be made with
#   sh scripts/setup.sh venv     an empty .venv
#   sh scripts/setup.sh chat     .venv with edgellm and the MLX backend of this machine
#   sh scripts/setup.sh dev      the same, with what tests, lint and types need
#
# PYTHON names the Python to use, EXTRAS further extras of pyproject.toml, comma-separated.
# Standard input is left alone and standard output stays empty, so that "make -s chat" can be scripted.
set -eu
cd "$(dirname "$0")/.."
exec 3>&1 >&2 </dev/null
unset PYTHONHOME PYTHONPATH

level=${1:-dev}
log=.venv/setup.log
begun=.venv/setup.begun

say() { printf '%s\n' "$*"; }

fail() {
    say "error: $1"
    say ""
    say "hint: $2"
    exit 1
}

first_line() { printf '%s\n' "$1" | sed -n '/./{p;q;}'; }

# A name on the path proves nothing: version managers leave shims that fail, Debian splits ensurepip off, and an Intel
# Python on an Apple-silicon Mac finds no MLX. So each candidate is run, and says why it will not do.
suits() {
    "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d" % sys.version_info[:2])
import platform
if sys.platform == "darwin" and platform.machine() != "arm64":
    sys.exit("it is built for Intel, and MLX needs Apple silicon")
for module in ("venv", "ensurepip", "ssl"):
    try:
        __import__(module)
    except ImportError:
        sys.exit("it has no module " + module)
' 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        reason=$(suits "$PYTHON") ||
            fail "PYTHON=$PYTHON cannot be used: $(first_line "$reason")" "name a Python 3.11 or later, or leave PYTHON out"
        python=$PYTHON
        return
    fi
    rejected=
    for python in python3.11 python3.12 python3.13 python3.14 python3 python; do
        command -v "$python" >/dev/null 2>&1 || continue
        if reason=$(suits "$python"); then return; fi
        rejected="$rejected
  $python: $(first_line "$reason")"
    done
    python=
    if command -v uv >/dev/null 2>&1; then return; fi
    [ -z "$rejected" ] || say "looked at:$rejected"
    case $(uname -s) in
        Darwin) hint="install one with 'brew install python@3.13' or from python.org, or install uv" ;;
        *) hint="install one with its venv module ('apt install python3 python3-venv' on Debian and Ubuntu), or install uv" ;;
    esac
    fail "no Python 3.11 or later was found" "$hint"
}

backend() {
    [ "$(uname -s)" = Linux ] || return 0
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/\..*//p') || driver=
    case $driver in
        '' | *[!0-9]*) say cpu ;;
        *)
            if [ "$driver" -ge 580 ]; then
                say cuda
            else
                say "The NVIDIA driver is version $driver; MLX needs 580 or later and will use the CPU" >&2
                say cpu
            fi
            ;;
    esac
}

# The file $begun names the process at work. An installation that was cut off can leave packages that pip takes for whole,
# so .venv is then made anew.
make_venv() {
    if at_work; then
        say "Waiting for process $(cat "$begun"), which is setting up .venv"
        while at_work; do sleep 1; done
    fi
    if [ ! -e "$begun" ] && .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        return
    fi
    find_python
    rm -rf .venv
    mkdir .venv
    echo $$ >"$begun"
    if [ -n "$python" ]; then
        say "Making .venv with $("$python" --version)"
        "$python" -m venv .venv || fail "$python could not make .venv" "see the lines above"
    else
        say "Making .venv with uv"
        uv venv --quiet --allow-existing --seed --python '>=3.11,<3.14' .venv || fail "uv could not make .venv" "see the lines above"
    fi
    rm "$begun"
}

at_work() { [ -e "$begun" ] && kill -0 "$(cat "$begun")" 2>/dev/null; }

# Shows each package as pip comes to it: on one line of a terminal, not at all elsewhere. The whole output is in the log.
install() {
    target=".${1:+[$1]}"
    say "Installing $target into .venv (once; minutes on a slow line)"
    echo $$ >"$begun"
    {
        .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --editable "$target" 2>&1 &&
            rm "$begun"
    } | while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
            Collecting* | Downloading* | Installing*) if [ -t 2 ]; then printf '\r\033[K  %.70s' "$line" >&2; fi ;;
        esac
    done >"$log"
    if [ -t 2 ]; then printf '\r\033[K'; fi
    if [ -e "$begun" ]; then
        tail -n 15 "$log"
        fail "pip could not install $target" "the whole output is in $log; the next run starts again"
    fi
}

case $level in
    python)
        find_python
        say "${python:-uv}" >&3
        exit
        ;;
    venv)
        make_venv
        exit
        ;;
    chat) extras=${EXTRAS:-} ;;
    dev) extras=dev${EXTRAS:+,$EXTRAS} ;;
    *) fail "there is no level '$level'" "use python, venv, chat or dev" ;;
esac

# The stamp is written last, so that an interrupted set-up is done again; it names the folder because .venv cannot move.
want="$(cat pyproject.toml setup.py | cksum) $PWD ${EXTRAS:-}"
make_venv
for stamp in .venv/stamp-dev ".venv/stamp-$level"; do
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then exit 0; fi
done
backend=$(backend)
rm -f .venv/stamp-*
install "$backend${extras:+${backend:+,}$extras}"
printf '%s\n' "$want" >".venv/stamp-$level"
