"""The page of a training run in a browser: nothing is refused, and a phone is wide enough."""

import math

import pytest
from acceptance.page.chromium import chromium, installed

from edgellm.training.page.training_page import PageFacts, ShownAnswer, training_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="there is no Chromium"),
]


def facts():
    """A long run with preferences, long answers and long names."""
    steps = [
        {
            "step": step,
            "epoch": 1 + step // 500,
            "loss": 2 + 3 * math.exp(-step / 100) + 0.3 * math.sin(step),
            "rate": 1e-4 * (1 - step / 1000),
            "norm": 1 + math.cos(step / 9) ** 2,
            "tokens": 800,
            "asked": 500,
            "seconds": 1.5 + math.sin(step / 50),
            "applied": step != 77,
            "figures": {"margin": math.sin(step / 300) - 0.2, "accuracy": 0.5 + step / 2500},
        }
        for step in range(1, 1001)
    ]
    epochs = [
        {"epoch": number, "train": 3.0, "valid": 2.5 - number / 9, "step": 500 * number}
        | {"valid_figures": {"margin": 0.5, "accuracy": 0.75}}
        for number in range(3)
    ]
    words = "a-word-that-is-so-long-that-no-line-of-a-phone-has-room-for-it-" * 3
    answers = [ShownAnswer(f"Why {words}?", "Because. " * 60, words, "So.\n\nYes. " * 30)] * 3
    return PageFacts(
        title="Training a-folder-with-a-long-name" * 2,
        lines=["data.jsonl on a-model: 8.39 million numbers are learned", "step 1000 of 1000"],
        steps=steps,
        epochs=epochs,
        answers=answers,
        limit=1.0,
        tables={"Settings": [("rank", "16"), ("on", "q,k,v,o,gate,up,down")]},
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_a_phone_and_a_screen_in_both_schemes(tmp_path, scheme, width):
    path = tmp_path / "training.html"
    path.write_text(training_page(facts()))
    with chromium(tmp_path / "browser") as page:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.call("Emulation.setEmulatedMedia", features=[feature])
        page.resize(width, 844, touch=width < 500)
        page.open(path.as_uri())
        page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.value("document.querySelectorAll('svg[role=img]').length") == 6
        assert page.complaints == []
