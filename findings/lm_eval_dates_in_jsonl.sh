#!/bin/sh
# lm-eval 0.4.13 with datasets 5.2.0 (PyPI): in a task over a JSON lines file (dataset_path: json), a
# text that looks like a date reaches the model as another text.
#
# One would expect: a string of the file is a string in the prompt and in the answer.
#
# What happens: datasets reads the file with pyarrow, which makes a timestamp of a column all of
# whose texts look like one. The template then writes it in Python's way, with a time of day; a gold
# answer is changed in the same way, so that a model that gives the file's own answer is wrong.
#
# Output seen (x86-64, Python 3.11):
#   in the file:   born 1815-12-10, answer 1852-11-27
#   in the prompt: born 1815-12-10 00:00:00, answer 1852-11-27 00:00:00
#   exact_match of the file's own answer: 0.0
#
# For users: put a word before the date in one row at least, so that the column stays a text.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-eval==0.4.13 datasets==5.2.0
cd "$folder"
echo '{"born": "1815-12-10", "died": "1852-11-27"}' > rows.jsonl
cat > dates.yaml <<'YAML'
task: dates
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "born {{born}}, died"
doc_to_target: "{{died}}"
metric_list: [{metric: exact_match}]
YAML
HF_HOME=$folder venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import json
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

row = json.loads(Path("rows.jsonl").read_text())


class Knows(LM):
    """Answers with what the file says."""

    def loglikelihood(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        return [row["died"] for _ in requests]


manager = TaskManager(include_path=".", include_defaults=False)
results = lm_eval.simple_evaluate(model=Knows(), tasks=["dates"], task_manager=manager)
(sample,) = results["samples"]["dates"]
prompt = sample["arguments"][0][0].removesuffix(", died")
score = float(results["results"]["dates"]["exact_match,none"])
print(f"in the file:   born {row['born']}, answer {row['died']}")
print(f"in the prompt: {prompt}, answer {sample['target']}")
print("exact_match of the file's own answer:", score)
assert (prompt, score) == ("born 1815-12-10 00:00:00", 0.0)
PYTHON
