"""The page of records: what is on it, and that it holds nothing from elsewhere."""

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_records import COMMON, MACHINE, speed, speed_records

from edgellm.bench.records.kinds import AblationRecord, ParityRecord, QueryRecord
from edgellm.bench.report.html_report import as_html

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "br", "div"),
    *("section", "span", "b", "i", "details", "summary", "table", "thead", "tbody", "tr", "th"),
    *("td", "dl", "dt", "dd", "ul", "li", "figure", "figcaption", "svg", "path", "text", "g"),
    *("circle", "rect"),
}


class Tags(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.found, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@settings(max_examples=25, deadline=None)
@given(shown=st.lists(speed_records, max_size=4))
def test_a_page_of_any_records_has_known_elements_alone(shown):
    assert set(Tags(as_html(shown)).found) <= ALLOWED


def test_the_page_holds_nothing_from_elsewhere_and_escapes_what_it_shows():
    evil = '<script>alert(1)</script><img src="https://x/y">'
    found = [
        speed(model=evil, backend=evil, arithmetic=evil, threads=1, floor_seconds=0.5),
        speed(model=evil, backend=evil, threads=2, error=evil, environment=MACHINE | {evil: evil}),
        speed(model=evil, backend=evil, threads=2, test="pp8"),
        QueryRecord(
            **COMMON,
            test="query",
            tokens=3,
            seconds=(1.0,),
            question=evil,
            answer=evil,
            score=3.0,
            scored_by=evil,
            model_bytes=9,
        ),
    ]
    text = as_html(found)
    page = Tags(text)
    assert set(page.found) <= ALLOWED
    assert "<script" not in text
    assert not {name for name, _ in page.attributes} & {
        "src",
        "href",
        "onload",
        "onclick",
        "srcset",
    }
    assert evil in "".join(page.texts)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"&lt;.*?&gt;", "", text))
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_the_page_shows_each_plot_with_a_table_beneath():
    both = [
        speed(
            backend=backend,
            threads=threads,
            test=test,
            floor_seconds=0.5,
            step_seconds=(0.1, 0.2),
            seconds=(1.0 / threads,),
        )
        for backend in ("edgellm", "cpu")
        for threads in (1, 2)
        for test in ("tg32", "pp128")
    ]
    asked = [
        QueryRecord(
            **(COMMON | {"model": model}),
            test="query",
            tokens=10,
            seconds=(8.0 / threads,),
            threads=threads,
            question="What?",
            answer="That.",
            score=score,
            scored_by="person",
            model_bytes=size,
        )
        for model, size, score in (("small", 10**9, 3.0), ("large", 4 * 10**9, 8.0))
        for threads in (1, 2, 4)
    ]
    same = {
        "test": "parity",
        "kl": 0.01,
        "text": "a",
        "reference_text": "b",
        "text_equal": False,
        "equal_tokens": 3,
    }
    agreeing = [ParityRecord(**COMMON, **same, bits=bits) for bits in (4, 8)]
    parts = [
        AblationRecord(
            **COMMON, test="ablation", variant="all", tokens=2, seconds=(1.0,), whole_seconds=1.0
        )
    ]
    text = as_html(
        [*both, *asked, *agreeing, *parts, speed(error="no memory", test="load", seconds=())]
    )
    for title in (
        "Generation",
        "Prompt",
        "How near",
        "What threads bring",
        "Time of a single token",
        "Questions",
        "What went wrong",
    ):
        section = text.partition(f"<h2>{title}")[2].partition("<h2>")[0]
        assert "<table>" in section or '<ul class="sentences">' in section, title
    assert text.count("<svg viewBox") == 2 + 2 + 1
    assert "Accuracy and size" in text
    assert "100%" in text.partition("Time and cores")[2], "these answers scale as they should"
    assert as_html([]).count("<h2>") == 1


def test_reasons_come_first_and_names_of_tests_are_explained():
    found = [
        speed(seconds=(1.0, 1.0, 9.0), not_measured=("not measured: cuda, there is no GPU",)),
        speed(test="load", seconds=(), error="no memory", backend="cpu"),
        speed(test="load", seconds=(), error="no memory", backend="other"),
    ]
    text = as_html(found)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[:3] == ["What went wrong", "What was not measured", "Doubtful figures"]
    assert text.count("no memory") == 1, "a reason is said once, with all that it is about"
    assert "<li>cuda, there is no GPU</li>" in text
    assert "<dt>tg32</dt><dd>32 tokens generated</dd>" in text
