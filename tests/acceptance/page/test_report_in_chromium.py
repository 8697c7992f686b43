"""The bench's page in a browser: nothing is refused, and nothing is wider than a phone."""

import re

import pytest
from acceptance.page.chromium import chromium, installed
from support.bench_records import evaluation, speed

from edgellm.bench.report.result_files import write_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="there is no Chromium"),
]

RIGHT = [1, 1, 1, 0] * 10


def records():
    """A task with several sizes, threads, ways to decode and examples; and a speed."""
    sizes = {16: 14_000_000, 8: 7_400_000, 4: 3_900_000, 3: 3_000_000}
    runs = [
        evaluation(
            RIGHT[:-bits] + [0] * bits,
            model=f"a-model-with-a-long-name-of-{bits}-bits",
            bits=bits,
            model_bytes=nbytes,
            shape="8 layers",
            threads=threads,
            shots=shots,
            decoding=decoding,
            prompt_hash=str(shots),
            shot_text="a line that is long " * 20 * shots,
        )
        for bits, nbytes in sizes.items()
        for threads in (1, 2)
        for shots in (0, 1)
        for decoding in ("greedy", "top-p:0.9")
    ]
    return [*runs, speed()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_both_schemes(tmp_path, scheme):
    path = tmp_path / "report.html"
    write_records(path, records())
    with chromium(tmp_path / "browser") as page:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.call("Emulation.setEmulatedMedia", features=[feature])
        page.resize(390, 844, touch=True)
        page.open(path.as_uri())
        page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.value("document.documentElement.scrollWidth") <= 390
        ink, paper = (
            sum(map(int, re.findall(r"\d+", page.value(f"getComputedStyle(document.body).{name}"))))
            for name in ("color", "backgroundColor")
        )
        assert (ink < paper) == (scheme == "light")
        assert page.complaints == []


def test_names_of_points_lie_inside_their_drawings(tmp_path):
    path = tmp_path / "report.html"
    write_records(path, records())
    with chromium(tmp_path / "browser") as page:
        page.resize(1200, 900)
        page.open(path.as_uri())
        outside = page.value(
            "[...document.querySelectorAll('svg .name')].filter(name => {"
            "const box = name.getBoundingClientRect(),"
            "      area = name.closest('svg').getBoundingClientRect();"
            "return box.left < area.left - 1 || box.right > area.right + 1"
            "}).map(name => name.textContent)"
        )
        assert page.value("document.querySelectorAll('svg .name').length") > 8
        assert outside == []
