"""lm-evaluation-harness gives edgellm's models the scores that it gives transformers'.

Question by question, in float32, of tiny models with both kinds of tokenizers: log-likelihoods
within 1e-3 nats, greedy choices, metrics and texts equal.
"""

import json
import logging

import pytest
from support import tiny
from support.tiny_tokenizers import write_pieces

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

ROWS = 6
HEAD = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
"""
OPTIONS = "output_type: multiple_choice\ndoc_to_target: y\n"
BOTH = "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
TASKS = {
    "labels": OPTIONS
    + BOTH
    + 'doc_to_text: "{{q}}?\\nAnswer:"\ndoc_to_choice: ["yes", "no", "a"]\n',
    "cloze": OPTIONS + BOTH + 'doc_to_text: "{{q}} "\ndoc_to_choice: choices\n',
    "sentences": OPTIONS + BOTH + 'doc_to_text: ""\ndoc_to_choice: choices\n',
    "turned": OPTIONS + BOTH + 'doc_to_text: "A: {{q}}"\ndoc_to_choice: choices\n'
    'target_delimiter: ""\n',
    "texts": "output_type: loglikelihood_rolling\ndoc_to_target: long\n"
    'doc_to_text: ""\nmetric_list: [{metric: bits_per_byte}]\n',
    "answers": "output_type: generate_until\ndoc_to_target: q\n"
    'doc_to_text: "{{long}}"\nmetric_list: [{metric: exact_match}]\n'
    'generation_kwargs: {until: ["e", "\\n"], max_gen_toks: 12}\n',
}
CASES = [
    *((name, 0, False) for name in TASKS),
    *((name, 2, chat) for name in ("labels", "answers") for chat in (False, True)),
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The index of the tasks."""
    for library in ("lm_eval", "transformers", "torch", "accelerate"):
        pytest.importorskip(library)
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("tasks")
    texts = [" ".join(tiny.TEXTS[number % 5].split()[: 6 + number]) for number in range(ROWS)]
    rows = [
        {
            "q": text,
            "y": number % 2,
            "choices": ["the red ball", "they were happy and slept"],
            "long": f"{text} " + " ".join(tiny.TEXTS) * (number % 3),
        }
        for number, text in enumerate(texts)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, form in TASKS.items():
        head = HEAD.format(name=name, file=folder / "rows.jsonl")
        (folder / f"{name}.yaml").write_text(head + form)
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module", params=["byte-level", "pieces"])
def models(request, tasks, tmp_path_factory):
    """A model, once as transformers runs it and once as edgellm does."""
    from lm_eval.models.huggingface import HFLM

    from edgellm.bench.evaluation.harness.library import model_class

    folder = tmp_path_factory.mktemp("model") / "model"
    config = tiny.CONFIGS["llama-3.2"]
    if request.param == "pieces":
        config = config | {"vocab_size": 432, "bos_token_id": 1, "eos_token_id": 2}
    tiny.write_model(folder, config, seed=2, tokenizer=request.param == "byte-level")
    if request.param == "pieces":
        write_pieces(folder)
    settings = {"max_length": 200, "device": "cpu"}
    theirs = HFLM(pretrained=str(folder), dtype="float32", **settings)
    ours = model_class()(
        str(folder), activations="float", kv_bits=32, threads=1, like_harness=True, **settings
    )
    yield theirs, ours
    ours.llm.close()


def answers(model, name, tasks, *, shots, chat):
    from lm_eval import evaluate

    task = tasks.load([name])["tasks"][name]
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    settings = {"apply_chat_template": chat, "fewshot_as_multiturn": chat, "bootstrap_iters": 0}
    return evaluate(model, {"tasks": {name: task}}, **settings)["samples"][name]


@pytest.mark.parametrize(("name", "shots", "chat"), CASES)
def test_every_question_has_the_same_scores(name, shots, chat, models, tasks):
    if name == "answers" and models[1].llm.tokenizer.drops_first_blank:
        pytest.skip("random bytes: see findings/tokenizers_byte_fallback_runs.sh")
    theirs, ours = (answers(model, name, tasks, shots=shots, chat=chat) for model in models)
    assert len(theirs) == len(ours) == ROWS
    for one, other in zip(theirs, ours, strict=True):
        assert one["arguments"] == other["arguments"]
        for (score,), (own,) in zip(one["resps"], other["resps"], strict=True):
            if isinstance(score, tuple):
                assert own[0] == pytest.approx(score[0], abs=1e-3)
                assert own[1] == score[1]
            elif isinstance(score, float):
                assert own == pytest.approx(score, abs=1e-3)
            else:  # half a character at an answer's end is shown there, and not here
                assert own == score.rstrip("\N{REPLACEMENT CHARACTER}")
        if name != "texts":
            assert [one[metric] for metric in one["metrics"]] == [
                other[metric] for metric in other["metrics"]
            ]
    if name == "answers":
        assert any(models[1].adapter.counts.cut_tokens.values())
