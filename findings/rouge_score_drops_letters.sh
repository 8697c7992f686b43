#!/bin/sh
# rouge-score 0.1.2 (PyPI): every letter but a to z is a space between words.
#
# One would expect: a summary that equals its reference has ROUGE-L 1 in any language, and words
# that differ are different words.
#
# What happens: the default tokenizer keeps [a-z0-9] only. A summary in Russian, Greek or Chinese
# has no words, so that a perfect one scores 0. In German or French words fall apart: the words for
# greetings and for size, "Grüße" and "Größe", both become "gr" and "e", and count as equal.
# Nothing warns. A tokenizer of one's own can be passed (`RougeScorer(..., tokenizer=...)`).
#
# Output seen (Python 3.11):
#   'Прогноз погоды на завтра' against itself: ROUGE-L 0
#   '明日の天気予報' against itself: ROUGE-L 0
#   'viele Grüße' against 'viele Größe': ROUGE-L 1.0
#   'für' against 'für das': ROUGE-L 0.8
#
# For programs: pass a tokenizer whenever texts are not plain ASCII.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rouge-score==0.1.2
cd "$folder"
PYTHONIOENCODING=utf-8 venv/bin/python - <<'PYTHON'
from rouge_score.rouge_scorer import RougeScorer

scorer = RougeScorer(["rougeL"])


def rouge(reference, summary):
    return scorer.score(reference, summary)["rougeL"].fmeasure


for text in ("Прогноз погоды на завтра", "明日の天気予報"):
    print(f"{text!r} against itself: ROUGE-L {rouge(text, text)}")
    assert rouge(text, text) == 0, "changed"
print(f"'viele Grüße' against 'viele Größe': ROUGE-L {rouge('viele Größe', 'viele Grüße')}")
# one word of two is right: a whole word scorer says P 1, R 1/2, so 2/3
print(f"'für' against 'für das': ROUGE-L {rouge('für das', 'für')}")
assert rouge("viele Größe", "viele Grüße") == 1, "changed"
assert abs(rouge("für das", "für") - 0.8) < 1e-9, "changed"
PYTHON
