"""docs/python.md is true: its blocks run, its tables name every setting and every error."""

import contextlib
import dataclasses
import io
import re

import pytest
from support.paths import ROOT

from edgellm import errors
from edgellm.settings import LoadSettings, Sampling

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = {
    f"line {PAGE[: block.start()].count(chr(10)) + 2}": block.group(1)
    for block in re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}
EXAMPLES = [path.read_text(encoding="utf-8") for path in ROOT.glob("examples/*.py")]
RUN_HERE = {
    place: block
    for place, block in BLOCKS.items()
    if not any(block in example for example in EXAMPLES)  # which have tests of their own
}


@pytest.mark.parametrize("place", RUN_HERE)
def test_a_block_of_the_page_runs(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(RUN_HERE[place], place, "exec"), {"__name__": "__main__"})


def test_the_examples_of_the_page_are_the_files_and_the_service_is_short():
    assert len(BLOCKS) == len(RUN_HERE) + len(EXAMPLES)
    text = (ROOT / "examples" / "service.py").read_text(encoding="utf-8")
    assert text in BLOCKS.values()
    assert len([line for line in text.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize(
    ("heading", "settings"), [("Load settings", LoadSettings), ("Sampling settings", Sampling)]
)
def test_a_table_of_settings_is_that_of_its_class(heading, settings):
    fields = [(f"`{field.name}`", f"`{default(field)}`") for field in dataclasses.fields(settings)]
    assert [tuple(row[:2]) for row in table_under(heading)] == fields


def default(field):
    if isinstance(field.default, str):
        return f'"{field.default}"'
    return repr(field.default)


def test_the_table_of_errors_names_every_error():
    tree = [
        f"`{name}`"
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.EdgeLLMError)
    ]
    assert [row[0] for row in table_under("Errors")] == tree[1:]


def table_under(heading):
    """Return the cells of the first table under a heading of the page, without its own heading."""
    section = re.search(rf"^#+ {heading}$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.group(1).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
