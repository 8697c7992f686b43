"""The page at / is one file that may run nothing but itself."""

import re
import tomllib
from base64 import b64decode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from support.paths import ROOT

from edgellm.server.page import PAGE, content_policy

TEXT = PAGE.read_text(encoding="utf-8")
SINKS = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")
LOADS = {"src", "srcset", "href", "poster", "data", "action", "formaction"}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and what stands in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.inner = {"script": [], "style": []}
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.inner:
            self.inner[tag].append("")
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.inner[self._inside][-1] += data


@pytest.fixture(scope="module")
def page():
    return Elements(TEXT)


@pytest.fixture(scope="module")
def answer(client):
    status, headers, body = client.request("GET", "/")
    assert status == 200
    return headers, body.decode()


def test_the_server_answers_with_the_file(answer):
    headers, body = answer
    assert body == TEXT
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_policy_allows_this_script_and_this_style_alone(answer, page):
    headers, _ = answer
    policy = dict(
        rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; ") if " " in rule
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    for element in ("script", "style"):
        (inner,) = page.inner[element]
        allowed = re.fullmatch("'sha256-(.*)'", policy[f"{element}-src"])[1]
        assert b64decode(allowed) == sha256(inner.encode()).digest()


def test_a_changed_script_has_another_hash():
    first = content_policy("<style>a</style><script>b()</script>")
    assert first != content_policy("<style>a</style><script>b(1)</script>")
    assert "unsafe" not in first


def test_the_page_loads_nothing(page):
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in LOADS
    ]
    assert [each for each in addresses if not each.startswith(("#", "data:image/svg+xml,"))] == []
    (style,) = page.inner["style"]
    assert "url(" not in style
    assert "@import" not in style
    (script,) = page.inner["script"]
    assert re.findall(r"^import\b|\bimport\(", script, re.MULTILINE) == []
    # only what a person may follow has an address
    assert set(re.findall(r"https?://[\w.]+", TEXT)) == {"http://www.w3.org"}


def test_no_attribute_holds_code_or_style(page):
    names = {name for _, attributes in page.elements for name in attributes}
    assert [name for name in names if name.startswith("on") or name == "style"] == []


def test_texts_never_become_markup(page):
    (script,) = page.inner["script"]
    assert [sink for sink in SINKS if sink in script] == []


def test_every_field_and_button_has_a_name(page):
    unnamed = [
        attributes
        for tag, attributes in page.elements
        if tag in {"textarea", "select", "input"}
        and not (attributes.get("aria-label") or attributes.get("name"))
    ]
    assert unnamed == []
    icons = re.findall(r"<button[^>]*>\s*<svg", TEXT)
    assert [each for each in icons if "aria-label=" not in each] == []


def test_installations_have_the_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert PAGE.name in project["tool"]["setuptools"]["package-data"]["edgellm.server"]
