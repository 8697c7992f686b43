#!/bin/sh
# nervaluate 1.2.1 (PyPI): its "strict" result takes tags that are no entity in IOB2.
#
# One would expect: "strict" to be at least as hard as its namesake in seqeval (`mode="strict",
# scheme=IOB2`), where an entity begins with B-.
#
# What happens: an I- tag that nothing begins is loaded as an entity, before the strict comparison
# is made of spans and types. A prediction of I- tags only has the strict F1 1.0, and so has one in
# which a person goes on as a location by I-location alone. seqeval says 0 and less than 1. Both
# are right by their own definition; figures of the two under one name cannot be compared.
# nervaluate's equal seqeval's default, which is conlleval's.
#
# Output seen (Python 3.11, seqeval 1.2.2):
#   I- tags only: nervaluate strict 1.0, seqeval strict 0.0, seqeval default 1.0
#   a type changed without B-: nervaluate strict 1.0, seqeval strict 0.67, seqeval default 1.0
#
# For programs: say by which rules spans were made of tags, beside any F1 over entities.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nervaluate==1.2.1 seqeval==1.2.2
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
from nervaluate import Evaluator
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2


def compare(name, gold, predicted):
    evaluator = Evaluator([gold], [predicted], tags=["person", "location"], loader="list")
    strict = evaluator.evaluate()["overall"]["strict"].f1
    theirs = f1_score([gold], [predicted], mode="strict", scheme=IOB2)
    default = f1_score([gold], [predicted])
    print(
        f"{name}: nervaluate strict {strict}, seqeval strict {round(theirs, 2)},"
        f" seqeval default {default}"
    )
    return strict, round(theirs, 2), default


odd = compare("I- tags only", ["B-person", "I-person", "O"], ["I-person", "I-person", "O"])
changed = compare(
    "a type changed without B-", ["B-person", "B-location", "O"], ["B-person", "I-location", "O"]
)
assert odd == (1.0, 0.0, 1.0), "changed"
assert changed == (1.0, 0.67, 1.0), "changed"
PYTHON
