#!/bin/sh
# lm-eval 0.4.13 (PyPI): acc_norm divides log-likelihoods by characters, where the package's own
# pages say bytes; outside ASCII the two name different answers.
#
# One would expect: what tasks/multiblimp/README.md in the wheel (and those of TurBLiMP, BLiMP-NL and
# ZhoBLiMP) says: acc_norm is accuracy "normalized by number of bytes".
#
# What happens: the length of an option is len() of a Python string. In a language with several bytes
# a letter, an option of few long letters is favoured less than by bytes; acc_bytes, a metric that no
# page of the wheel names, divides by bytes.
#
# Output seen (x86-64, Python 3.11; log-likelihoods of the options -8 and -9):
#   options "aaaa" and "яяя":  by characters 0, by bytes 1, acc_norm chose 0, acc_bytes chose 1
#   README: normalized by number of bytes
#
# For users: ask for acc_bytes where bytes are meant; compare acc_norm with acc_norm only.
# Known: https://github.com/EleutherAI/lm-evaluation-harness/issues/3278 (open).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-eval==0.4.13
cd "$folder"
echo '{"q": "Q:", "choices": ["aaaa", "яяя"]}' > rows.jsonl
cat > letters.yaml <<'YAML'
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{metric: acc_norm}, {metric: acc_bytes}]
YAML
HF_HOME=$folder venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

SCORES = {"aaaa": -8.0, "яяя": -9.0}


class Fixed(LM):
    """Gives each option its score."""

    def loglikelihood(self, requests):
        return [(SCORES[one.args[1].strip()], False) for one in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


manager = TaskManager(include_path=".", include_defaults=False)
results = lm_eval.simple_evaluate(model=Fixed(), tasks=["letters"], task_manager=manager)
(sample,) = results["samples"]["letters"]
by_characters = max((0, 1), key=lambda one: list(SCORES.values())[one] / len(list(SCORES)[one]))
by_bytes = max(
    (0, 1), key=lambda one: list(SCORES.values())[one] / len(list(SCORES)[one].encode())
)
norm, in_bytes = (int(not sample[metric]) for metric in ("acc_norm", "acc_bytes"))  # 0 is right
print(
    f'options "aaaa" and "яяя":  by characters {by_characters}, by bytes {by_bytes},'
    f" acc_norm chose {norm}, acc_bytes chose {in_bytes}"
)
readme = (Path(lm_eval.__file__).parent / "tasks/multiblimp/README.md").read_text()
assert "log-probability normalized by number of bytes" in readme
print("README: normalized by number of bytes")
assert (norm, in_bytes) == (by_characters, by_bytes) == (0, 1)
PYTHON
