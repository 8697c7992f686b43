"""The page in a browser: with the real server, and with one that fails as servers do."""

import json

import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
from acceptance.page.chromium import chromium, installed
from acceptance.page.stand_in import piece, standing_in, whole
from support.served import served

import edgellm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="there is no Chromium"),
]
ENDED = "!document.body.hasAttribute('data-running') && document.querySelector('article .under')"
ANSWER = "[...document.querySelectorAll('.answered > .prose')].at(-1)"
MARKDOWN = {
    "plain *a* and **b** and ***c*** and ~~d~~": (
        "<p>plain <em>a</em> and <strong>b</strong> and <em><strong>c</strong></em> "
        "and <del>d</del></p>"
    ),
    "snake_case_name, 2 * 3 * 4, **a*b**": (
        "<p>snake_case_name, 2 * 3 * 4, <strong>a*b</strong></p>"
    ),
    "one\ntwo": "<p>one<br>two</p>",
    "`` a ` b `` and `*c*`": "<p><code>a ` b</code> and <code>*c*</code></p>",
    "# Title #\n\n#### Deeper": (
        '<h3 data-level="1">Title</h3><h4 data-level="4">Deeper</h4>'  # no level is skipped
    ),
    "- a\n- b\n  1. c\n  2. d": ("<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul>"),
    "3. a\n\n   b\n4. c": ('<ol start="3"><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>'),
    "> a\n> > b\n\nc": (
        "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"
    ),
    "- [x] done\n- [ ] not": ('<ul><li class="task">☑ done</li><li class="task">☐ not</li></ul>'),
    "***\na\n---": "<hr><p>a</p><hr>",
    "<b onclick=x()>b</b><script>x()</script>": (
        "<p>&lt;b onclick=x()&gt;b&lt;/b&gt;&lt;script&gt;x()&lt;/script&gt;</p>"
    ),
    "[a](javascript:x()) [b](data:text/html,x) [c](/v1/models) \\*d\\*": "<p>a b c *d*</p>",
    "unclosed **b and [c](": "<p>unclosed **b and [c](</p>",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def stand_in():
    with standing_in() as server:
        yield server


@pytest.fixture(scope="module")
def stories():
    with edgellm.load("stories") as llm:
        yield llm


@pytest.fixture(scope="module")
def real(stories):
    with served(stories, name="stories") as client:
        yield client


@pytest.fixture
def page(browser, stand_in):
    """The page of the server that stands in, as if it was never used."""
    fresh(browser, stand_in.url)
    stand_in.answers.clear()
    stand_in.bodies.clear()
    return browser


@pytest.fixture
def real_page(browser, real):
    real.chat("Hello", max_tokens=2)  # kernels are compiled now
    fresh(browser, f"{real.url}/")
    return browser


def fresh(browser, url):
    browser.resize(1280, 860)
    browser.open(url)
    browser.value("localStorage.clear(), sessionStorage.clear()")
    browser.open(url)
    browser.until("document.querySelector('#model').options.length")
    browser.complaints.clear()


def ask(page, text):
    page.value("document.querySelector('#text').focus()")
    page.write(text)
    page.press("Enter", 13)


def answer(page, text):
    """The text of the answer to a question, as it is shown."""
    ask(page, text)
    page.until(ENDED)
    return page.value(f"{ANSWER}.innerText")


def words(text):
    return text.split()


def test_an_answer_is_that_of_the_api_and_is_there_after_a_reload(real_page, real):
    question = "Tell me a story about a small boat."
    right = real.chat(question, max_tokens=40)["choices"][0]["message"]["content"]
    real_page.value("localStorage.setItem('edgellm.settings', '{\"max_tokens\": 40}')")
    real_page.open(f"{real.url}/")
    assert words(answer(real_page, question)) == words(right)
    figures = real_page.value("document.querySelector('.figures').textContent")
    assert figures.startswith("40 tokens · ")
    assert "tokens/s" in figures
    assert "limit of its length" in real_page.value("document.querySelector('.note').textContent")
    real_page.open(f"{real.url}/")
    real_page.until("document.querySelector('#list .name')")
    real_page.click("#list .name")
    assert words(real_page.value(f"{ANSWER}.innerText")) == words(right)
    assert real_page.value("document.title") == f"{question} · edgellm"
    assert real_page.complaints == []


def test_escape_stops_and_the_server_is_free(real_page, stories):
    ask(real_page, "Tell me a long story about a dog and a cat.")
    real_page.until(f"{ANSWER}?.innerText.length > 20")
    real_page.press("Escape", 27)
    real_page.until(ENDED)
    assert "Stopped" in real_page.value("document.querySelector('.answered').innerText")
    assert stories.generate("Once", max_tokens=4)  # nobody else computes on it


def test_a_question_is_changed_and_an_answer_is_written_again(page, stand_in):
    stand_in.answers = ["one", "two", "three"]
    assert answer(page, "first") == "one"
    page.press("ArrowUp", 38)
    page.until("document.activeElement.matches('.edit textarea')")
    page.write(" and more")
    page.press("Enter", 13)
    page.until(f"{ANSWER}?.innerText === 'two'")
    page.until(ENDED)
    page.click("[aria-label='Write this answer again']")
    page.until(f"{ANSWER}?.innerText === 'three'")
    page.until(ENDED)
    sent = [body["messages"] for body in stand_in.bodies]
    assert sent == [
        [{"role": "user", "content": "first"}],
        [{"role": "user", "content": "first and more"}],
        [{"role": "user", "content": "first and more"}],
    ]
    assert page.value("document.querySelectorAll('article').length") == 2


def test_settings_and_the_system_prompt_go_with_a_request(page, stand_in):
    stand_in.answers = ["one"]
    page.click("[data-does=settings]")
    page.write("Be brief.")
    for name, value in (("temperature", "0.5"), ("max_tokens", "9")):
        page.value(f"document.querySelector('[name={name}]').value = '{value}'")
    page.click("#settings .solid")
    page.until("localStorage['edgellm.settings']?.includes('Be brief.')")
    page.value("document.querySelector('#model').value = 'second'")
    page.value("document.querySelector('#model').dispatchEvent(new Event('change'))")
    answer(page, "first")
    assert page.value("document.querySelector('#state').textContent") == "Ready · 2.1 GB in use"
    (body,) = stand_in.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"]) == (0.5, 9)
    assert body["model"] == "second"
    assert "top_p" not in body


def test_markdown_becomes_elements_and_nothing_else_does(page, stand_in):
    for text, html in MARKDOWN.items():
        stand_in.answers = [text]
        answer(page, "again")
        assert page.value(f"{ANSWER}.innerHTML") == html, text
    assert page.complaints == []


def test_code_and_tables_keep_every_character(page, stand_in):
    code = 'def f():\n    # <b>\n    return "a|b" * 2\n\n\treturn f"{x}"'
    stand_in.answers = [f"```python\n{code}\n```\n\n| a | b |\n|:--|--:|\n| `x` | 2 \\| 3 |"]
    answer(page, "code")
    assert page.value(f"{ANSWER}.querySelector('pre').textContent") == code
    rows = f"[...{ANSWER}.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))"
    assert page.value(rows) == [["a", "b"], ["x", "2 | 3"]]
    page.resize(390, 844, touch=True)
    assert page.value("document.documentElement.scrollWidth") == 390
    assert page.value("document.querySelector('#thread').scrollWidth") <= 390


def test_a_link_says_where_it_leads(page, stand_in):
    stand_in.answers = [
        "[bank](https://other.example/a) https://b.example/x. "
        "![picture](https://c.example/p.png) [https://d.example](https://e.example)"
    ]
    text = answer(page, "links")
    assert text == (
        "bank (other.example) https://b.example/x. Image: picture (c.example) "
        "https://d.example (e.example)"
    )
    links = page.value(f"[...{ANSWER}.querySelectorAll('a')].map(a => [a.href, a.rel])")
    assert [href for href, _ in links] == [
        "https://other.example/a",
        "https://b.example/x",
        "https://c.example/p.png",
        "https://e.example/",
    ]
    assert {rel for _, rel in links} == {"noopener noreferrer nofollow"}
    assert page.value(f"{ANSWER}.querySelectorAll('img').length") == 0


def test_hostile_texts_cost_little(page, stand_in):
    stand_in.answers = [text * 4000 for text in ("[", "*a_b", "**a ", "> ", "`a``", "- ", "](")]
    stand_in.answers.append("# " + " " * 20000 + "x\n\n" + "https://a" + "." * 20000 + "x")
    for _ in range(len(stand_in.answers)):
        answer(page, "again")
    assert page.complaints == []


def test_thinking_is_folded_and_read_by_nobody_twice(page, stand_in):
    stand_in.answers = [whole("First part.\n\nSecond part.", thinking="Let me think.")]
    page.value(
        "window.heard = []; new MutationObserver(all => all.forEach(one => one.addedNodes.forEach("
        "node => heard.push(node.textContent)))).observe("
        "document.querySelector('#spoken'), {childList: true})"
    )
    answer(page, "think")
    assert page.value("document.querySelector('.thought').open") is False
    assert page.value("document.querySelector('.thought .prose').textContent") == "Let me think."
    assert page.value("heard") == ["Answering", "First part.", "Second part.", "Answer finished"]


def test_a_busy_server_is_asked_again_when_it_says_so(page, stand_in):
    stand_in.answers = [(503, {"Retry-After": "1"}), (429, {"Retry-After": "1"}), "at last"]
    ask(page, "first")
    page.until("document.querySelector('.waiting').innerText.includes('The server is busy')")
    page.until(ENDED)
    assert page.value(f"{ANSWER}.innerText") == "at last"
    assert len(stand_in.bodies) == 3


@pytest.mark.parametrize(
    ("reply", "title"),
    [
        ((400, {}), "The server refused this request"),
        ([piece(content="half")], "The connection ended before the answer did"),
        (
            [piece(content="half"), {"error": {"message": "a disk failed"}}],
            "The server could not finish the answer",
        ),
    ],
    ids=["refused", "cut", "broken"],
)
def test_trouble_is_told_and_can_be_tried_again(page, stand_in, reply, title):
    stand_in.answers = [reply, "whole"]
    answer(page, "first")
    assert page.value("document.querySelector('.trouble strong').textContent") == title
    assert page.value(f"{ANSWER}.innerText") == "half" * isinstance(reply, list)
    page.click(".trouble button")
    page.until(f"{ANSWER}?.innerText === 'whole'")


def test_a_key_is_asked_for_and_not_kept_with_the_conversations(page, stand_in):
    stand_in.key = "the-key"
    stand_in.answers = ["with a key"]
    try:
        ask(page, "first")
        page.until("document.activeElement.matches('.trouble input')")
        page.write("the-key")
        page.press("Enter", 13)
        page.until(f"{ANSWER}?.innerText === 'with a key'")
    finally:
        stand_in.key = None
    assert "the-key" not in page.value("JSON.stringify(localStorage)")


def test_a_server_that_is_gone_is_told(browser):
    with standing_in() as server:
        fresh(browser, server.url)
    ask(browser, "is anybody there?")
    browser.until(ENDED)
    title = browser.value("document.querySelector('.trouble strong').textContent")
    assert title == "The server does not answer"


def test_conversations_are_named_deleted_and_brought_back(page, stand_in):
    stand_in.answers = ["one", "two"]
    answer(page, "first question")
    page.click("#side [data-does=new]")
    answer(page, "second question")
    names = "[...document.querySelectorAll('#list .name')].map(each => each.textContent)"
    assert page.value(names) == ["second question", "first question"]
    page.click("#list li:last-child .more")
    page.click("#menu [data-does=rename]")
    page.write("Renamed")
    page.press("Enter", 13)
    assert page.value(names) == ["second question", "Renamed"]
    assert page.value("document.activeElement.textContent") == "Renamed"
    page.click("#list li:last-child .more")
    page.click("#menu [data-does=delete]")
    assert page.value(names) == ["second question"]
    page.click("#toast button")
    assert page.value(names) == ["second question", "Renamed"]


def test_everything_that_takes_the_focus_has_a_name(page, stand_in):
    stand_in.answers = ["```\ncode\n```\n\n| a |\n|---|\n| b |"]
    answer(page, "first")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "link", "region", "heading"}
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if node.get("role", {}).get("value") in roles and not node["ignored"]
    ]
    assert {"Message", "Send", "Settings", "New conversation"} <= {name for _, name in named}
    assert [role for role, name in named if not name.strip()] == []


def test_the_page_runs_no_other_script(page):
    for attack in (
        "document.body.innerHTML = '<img src=x>'",
        "eval('1')",
        "fetch('https://example.org')",
        "document.body.append(Object.assign(document.createElement('script'), {text: 'hit = 1'}))",
    ):
        guarded = f"(async () => {{ {attack.replace('fetch', 'await fetch')} }})()"
        page.value(f"{guarded}.then(() => 'done', () => 'refused')")
    assert page.value("typeof hit") == "undefined"
    assert page.value("document.querySelectorAll('main img').length") == 0
    assert any("Content Security Policy" in each for each in page.complaints)


def test_light_and_dark_follow_the_system(page, tmp_path):
    colours = []
    for scheme in ("light", "dark"):
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=feature)
        colours.append(page.value("getComputedStyle(document.body).backgroundColor"))
        page.picture(tmp_path / f"{scheme}.png")
        assert (tmp_path / f"{scheme}.png").read_bytes()[:4] == b"\x89PNG"
    page.call("Emulation.setEmulatedMedia", features=[])
    assert colours == ["rgb(255, 255, 255)", "rgb(27, 27, 29)"], json.dumps(colours)
