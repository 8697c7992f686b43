"""Small task files, one of each kind."""

import json
from types import SimpleNamespace

ROWS = {
    "classify": [
        {"text": f"message {number} about {label}", "label": label}
        for number, label in enumerate(["cards", "cards", "cash", "fees", "cash", "fees"])
    ],
    "choose": [
        {"question": f"What is {n} and {n}?", "choices": [str(n), f"{2 * n}.", "none"], "answer": 1}
        for n in range(1, 7)
    ],
    "nli": [
        {"premise": f"Dog {number} runs.", "hypothesis": "An animal moves.", "label": label}
        for number, label in enumerate(["entailment", "neutral", "contradiction"] * 2)
    ],
    "answer": [
        {
            "id": f"q{number}",
            "context": f"Town {number // 2} has bridges.",
            "question": f"Which bridge is number {number}?",
            "answers": [str(number), f"bridge {number}"],
        }
        for number in range(8)
    ],
    "summarize": [
        {"document": f"Long story {n}. It goes on.", "summaries": [f"Story {n}.", "It is long."]}
        for n in range(6)
    ],
    "translate": [
        {"src": "en", "tgt": "de", "source": f"{n} dogs", "reference": f"{n} Hunde"}
        for n in range(6)
    ],
    "continue": [{"prompt": f"Once, in {n},", "reference": f"it rained {n}."} for n in range(6)],
    "entities": [
        {
            "tokens": ["Ann", "Lee", "saw", "Rome", str(n)],
            "tags": ["B-person", "I-person", "O", "B-place", "O"],
        }
        for n in range(6)
    ],
    "text": [{"text": f"The sun rose on day {n}.\n"} for n in range(6)],
}
"""Rows of each kind."""


def write_rows(path, rows):
    """Write rows as lines of JSON, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scored(logprob, tokens=1):
    """Return the score of a text, as a model would have it."""
    return SimpleNamespace(logprob=logprob, ids=tuple(range(tokens)))
