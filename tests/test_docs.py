"""The documents name commands and files that are there."""

import importlib.util
import re

import pytest
from support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# What a person reads or copies: programs, documents, scripts.
READ = [
    path
    for folder in (".", ".ci", "bench", "converters", "docs", "edgellm", "recipes", "scripts")
    for path in sorted((ROOT / folder).glob("*" if folder == "." else "**/*"))
    if path.suffix in {".md", ".py", ".sh", ".toml", ""} and path.is_file()
]
FROM_AN_INDEX = re.compile(
    r"edgellm\[|\b(?:install|uv add|uvx)\s+(?:-\S+\s+)*[\"']?edgellm\b(?![./])"
)

# Files are named from the repository, from edgellm/, or, on the page of a folder, from there.
ROOTS = [ROOT, ROOT / "edgellm", ROOT / "edgellm" / "kernels"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_files_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m (edgellm[\w.]*)", text)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    assert [name for name in files if not any((root / name).is_file() for root in ROOTS)] == []
    findings = re.findall(r"`(findings/\w+\.sh)`", text)
    assert [name for name in findings if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_pages_and_headings(page):
    links = re.findall(r"\]\(([\w./-]*\.md)?(?:#([\w-]+))?\)", page.read_text(encoding="utf-8"))
    for link, anchor in links:
        linked = page
        if link:
            linked = page.parent / link
        assert linked.is_file(), link
        if anchor:
            assert anchor in anchors(linked), f"{link}#{anchor}"


def test_nobody_is_told_to_install_edgellm_from_an_index_that_does_not_have_it():
    found = {
        path.relative_to(ROOT).as_posix(): match.group(0)
        for path in READ
        if (match := FROM_AN_INDEX.search(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
