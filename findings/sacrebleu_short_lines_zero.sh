#!/bin/sh
# sacrebleu 2.6.0 (PyPI): perfect translations of lines with at most three tokens have BLEU 0.
#
# One would expect: 100 where every line equals its reference; at least more than for a translation
# that has nothing in common with it.
#
# What happens: BLEU is the geometric mean over n-grams of 1 to 4 tokens. A corpus in which no line
# has four tokens has no 4-grams at all, and its score is 0, with precisions 100/100/100/0 and
# without a warning. One perfect line of four tokens more makes it 100. chrF says 100 in both cases.
# `effective_order=True` also says 100; it is off by default, and the warning that names it comes
# for single sentences only.
#
# Output seen (Python 3.11):
#   three perfect lines of three tokens: BLEU 0.0, precisions 100.0 100.0 100.0 0.0, chrF 100.0
#   the same with effective_order=True: BLEU 100.0
#   with one more perfect line, of five tokens: BLEU 100.0
#
# For programs: read chrF beside BLEU, and for commands, names or titles pass effective_order=True.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check sacrebleu==2.6.0
cd "$folder"
venv/bin/python - <<'PYTHON'
from sacrebleu.metrics import BLEU, CHRF

lines = ["Guten Morgen!", "Vielen Dank.", "Bis morgen."]
bleu = BLEU().corpus_score(lines, [lines])
chrf = CHRF().corpus_score(lines, [lines])
precisions = " ".join(map(str, bleu.precisions))
print(
    f"three perfect lines of three tokens: BLEU {bleu.score}, precisions {precisions},"
    f" chrF {chrf.score}"
)
effective = BLEU(effective_order=True).corpus_score(lines, [lines]).score
print(f"the same with effective_order=True: BLEU {effective:.1f}")
more = [*lines, "Ich komme aus Berlin."]
longer = BLEU().corpus_score(more, [more]).score
print(f"with one more perfect line, of five tokens: BLEU {longer:.1f}")
assert (bleu.score, chrf.score) == (0.0, 100.0), "changed"
assert round(effective, 6) == round(longer, 6) == 100.0, "changed"
PYTHON
