#!/bin/sh
# typer 0.29.2 (PyPI): in fish, an option with a long help text completes to further candidates that
# are the rest of its own help.
#
# One would expect: one line for each completion, `--memory<TAB>help`, since fish takes every line
# for a candidate; typer itself replaces line breaks in the help before it writes it.
#
# What happens: after that the text goes through rich, whose console breaks it at 80 columns, also
# where rich_markup_mode is None and nothing is written to a terminal. The broken-off words come on
# a line of their own, and fish offers them; rich is imported for it at each press of Tab.
#
# Output seen (x86-64, Python 3.11):
#   '--memory\tMaximum memory for weights, cache and activations: 4GB, 1.5GiB, 60%; default: '
#   'what is free.'
#   1 option, 2 candidates
#
# For users: keep help of options below 80 characters, or clear `help` of the items that
# `shell_complete` of your command class returns.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check typer==0.29.2
cd "$folder"
cat > program.py <<'PYTHON'
from typing import Annotated

import typer

HELP = "Maximum memory for weights, cache and activations: 4GB, 1.5GiB, 60%; default: what is free."
app = typer.Typer(rich_markup_mode=None)


@app.command()
def run(memory: Annotated[str, typer.Option(help=HELP)] = "") -> None:
    print(memory)


app(prog_name="program")
PYTHON
_PROGRAM_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
    _TYPER_COMPLETE_ARGS="program --m" venv/bin/python program.py > completions
venv/bin/python - <<'PYTHON'
lines = open("completions").read().splitlines()
for line in lines:
    print(repr(line))
print(f"1 option, {len(lines)} candidates")
assert len(lines) == 2
assert not lines[1].startswith("-")
PYTHON
