#!/bin/sh
# lm-eval 0.4.13 (PyPI): the cache of answers (use_cache, --use_cache) does not know which model gave
# them: the second model's scores are the first one's.
#
# One would expect: an answer is kept under the model, its settings and the request, or a cache that
# another model has written is refused.
#
# What happens: CachingLM looks an answer up by the kind of request and its arguments alone. With one
# path for two models (or one model in 16 and in 4 bits) the second is never asked.
#
# Output seen (x86-64, Python 3.11):
#   model that likes "no":  acc 0.0, asked 2 times
#   model that likes "yes": acc 0.0, asked 0 times
#   the same without a cache: acc 1.0, asked 2 times
#
# For users: give each model, and each of its settings, a path of its own.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-eval==0.4.13
cd "$folder"
echo '{"q": "Is water wet?", "y": 0}' > rows.jsonl
cat > wet.yaml <<'YAML'
task: wet
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no"]
doc_to_target: y
metric_list: [{metric: acc}]
YAML
HF_HOME=$folder venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager


class Likes(LM):
    """Finds one answer likely."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, 0

    def loglikelihood(self, requests):
        self.asked += len(requests)
        return [(-1.0 if one.args[1].strip() == self.answer else -9.0, False) for one in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def accuracy(model, **settings):
    manager = TaskManager(include_path=".", include_defaults=False)
    results = lm_eval.simple_evaluate(model=model, tasks=["wet"], task_manager=manager, **settings)
    return float(results["results"]["wet"]["acc,none"])


found = []
for words, answer, settings in (
    ('model that likes "no": ', "no", {"use_cache": "kept"}),
    ('model that likes "yes":', "yes", {"use_cache": "kept"}),
    ("the same without a cache:", "yes", {}),
):
    model = Likes(answer)
    found.append((accuracy(model, **settings), model.asked))
    print(f"{words} acc {found[-1][0]}, asked {found[-1][1]} times")
assert found == [(0.0, 2), (0.0, 0), (1.0, 2)]
PYTHON
