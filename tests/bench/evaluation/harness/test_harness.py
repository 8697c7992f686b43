"""Tasks from YAML files run on models, one after the other, and become records."""

import json
import sys
from pathlib import Path

import pytest

from edgellm.bench.evaluation.harness.run import HarnessSettings, run_harness
from edgellm.bench.evaluation.harness.task_index import folders_with, index_of, names_in
from edgellm.bench.evaluation.harness.tasks import CATEGORIES, tasks_of
from edgellm.errors import BackendError

CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
"""
FORMS = {
    "options": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: choices
doc_to_target: y
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "answers": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: a
generation_kwargs: {until: ["."], max_gen_toks: 5}
metric_list: [{metric: exact_match}]
""",
    "texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: q
metric_list: [{metric: word_perplexity}]
""",
}


@pytest.fixture
def tasks_folder(tmp_path):
    """A folder with three tasks, and one whose data is missing."""
    rows = [
        {"q": f"Once upon a time {number}", "choices": ["dog", "sea"], "y": number % 2, "a": "dog"}
        for number in range(4)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, form in FORMS.items():
        text = CHOICES.format(name=name, file=data) + form
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    gone = CHOICES.format(name="gone", file=tmp_path / "gone.jsonl") + FORMS["options"]
    (tmp_path / "gone.yaml").write_text(gone, encoding="utf-8")
    return tmp_path


def test_tasks_become_records(tasks_folder, tiny_folder):
    pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")
    models = [str(tiny_folder("llama-3.2")), str(tiny_folder("llama-3.2", seed=1))]
    settings = HarnessSettings(
        tasks=["options", "answers", "texts", "gone"],
        folder=tasks_folder,
        shots=[1],
        limit=3,
        loads=[{"memory": 500_000_000, "threads": 1}],
    )
    records = list(run_harness(models, settings))
    assert [(record.model, record.task) for record in records] == [
        (model, task) for model in models for task in settings.tasks
    ]
    options, answers, texts, gone = records[:4]
    assert (options.headline, answers.headline, texts.headline) == (
        *("acc_norm", "exact_match", "bits_per_byte"),
    )
    for one, other in zip(records[:3], records[4:7], strict=True):
        assert one.error is None
        assert (one.prompt_hash, one.question_hashes) == (other.prompt_hash, other.question_hashes)
        assert one.question_ids == other.question_ids == ("0", "1", "2")
        assert one.shots == 1
    assert options.columns["right_logprob"] != records[4].columns["right_logprob"]
    assert texts.columns["tokens"] == records[6].columns["tokens"]
    assert "gone.jsonl" in gone.error


def test_without_the_harness_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BackendError, match="not installed") as caught:
        list(run_harness(["stories"], HarnessSettings(tasks=["code"])))
    assert ".[harness]" in caught.value.hint


def test_categories_stand_for_their_tasks():
    assert tasks_of(["mathematics", "gsm8k", "mine"]) == [*CATEGORIES["mathematics"], "mine"]


def test_folders_are_found_by_the_names_in_their_files(tmp_path):
    files = {
        "arc/easy.yaml": "task: arc_easy\ntag:\n  - ai2_arc\n",
        "arc/other.yaml": "task: arc_easy_fr\n",
        "groups/science.yaml": 'group: science\ntask:\n  - "arc_easy"\n',
        "plain/_template_yaml": "tag: plain_tasks\n",
        "plain/notes.txt": "task: arc_easy\n",
        "listed/one.yaml": "task: one\ntag: [first, second-tag]\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def found(*names):
        return {path.name for path in folders_with(names, tmp_path)}

    assert found("ai2_arc") == {"arc"}
    assert found("arc_easy") == {"arc", "groups"}
    assert found("plain_tasks", "science") == {"plain", "groups"}
    assert found("second-tag") == {"listed"}
    assert found("arc", "easy", "second") == set()
    assert names_in(tmp_path) == {"arc_easy", "arc_easy_fr", "science", "one"}


@pytest.mark.parametrize("names", [["boolq", "mmlu", "minerva_math"], ["winogender"]])
def test_an_index_of_some_tasks_has_them_as_that_of_all(names):
    lm_eval_tasks = pytest.importorskip("lm_eval.tasks", reason="the extra `harness` is missing")
    index = index_of(names, None).task_index
    assert len(index) < 1000
    root = Path(lm_eval_tasks.__file__).parent
    for name in names:
        folders = [str(path) for path in folders_with([name], root)]
        whole = lm_eval_tasks.TaskManager(include_path=folders, include_defaults=False)
        assert index[name] == whole.task_index[name]
    members = index["mmlu"].cfg["task"] if "mmlu" in names else []
    assert all(member in index for member in members if isinstance(member, str))
