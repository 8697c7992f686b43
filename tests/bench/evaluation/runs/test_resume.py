"""Runs that go on: an outcome counts for what was asked, of whom and by whom, and nothing else."""

import json
import shutil

import pytest

from edgellm.bench.evaluation.runs.evaluate import evaluate
from edgellm.bench.evaluation.runs.run import EvaluatedModel
from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.bench.evaluation.runs.session import Session
from edgellm.bench.evaluation.runs.settings import EvaluationSettings
from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.errors import BackendError
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint

TEXTS = ("The dog was happy", "Tom saw a cat", "She had a ball")
PROMPT = {
    "name": "c0",
    "context": "The dog was happy",
    "messages": [],
    "continuations": [" and it ran"],
}


def choose(text):
    return {"question": text, "choices": ["and it ran", "qwx zzk"], "answer": 0}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_task(path)


def ask(models, task, path, limit=None):
    samples = Samples(path, resume=path.exists())
    return list(evaluate(models, [task], EvaluationSettings(limit=limit), samples))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A record of the first two questions, its samples, and a record of all three."""
    folder = tmp_path_factory.mktemp("two")
    task = write(folder / "task.jsonl", [choose(text) for text in TEXTS])
    [two] = ask(["stories-draft"], task, folder / "two.jsonl", limit=2)
    [three] = ask(["stories-draft"], task, folder / "three.jsonl")
    return two, folder / "two.jsonl", three


def test_another_limit_asks_the_rest(of_two, tmp_path):
    two, samples, three = of_two
    path = shutil.copy(samples, tmp_path / "samples.jsonl")
    task = write(tmp_path / "task.jsonl", [choose(text) for text in TEXTS])
    [more] = ask(["stories-draft"], task, path)
    assert more.columns == three.columns
    [fewer] = ask(["stories-draft"], task, path, limit=1)
    assert fewer.columns["right_logprob"] == two.columns["right_logprob"][:1]
    assert fewer.layer_tokens is None, "it is not known of one question"
    [same] = ask(["stories-draft"], task, path, limit=2)
    assert same.layer_tokens == two.layer_tokens


def test_a_row_that_was_edited_is_asked_again(of_two, tmp_path):
    two, samples, _ = of_two
    path = shutil.copy(samples, tmp_path / "samples.jsonl")
    task = write(tmp_path / "task.jsonl", [choose("Nothing at all"), choose(TEXTS[1])])
    [edited] = ask(["stories-draft"], task, path)
    known, again = two.columns["right_logprob"], edited.columns["right_logprob"]
    assert again[1] == known[1]
    assert again[0] != known[0]


def test_texts_are_compared_with_the_reference_that_is_named(tmp_path):
    task = write(tmp_path / "task.jsonl", [{"text": f"{text}. He ran home."} for text in TEXTS])
    path = tmp_path / "samples.jsonl"
    _, whole = ask(["stories", "stories-draft"], task, path)
    assert all(whole.columns["kl_sum"])

    # stopped while logits were compared: the first of them is known, the end is not
    lines = path.read_text().splitlines(keepends=True)
    compared = [line for line in lines if "kl_sum" in line]
    path.write_text("".join([*(line for line in lines if line not in compared[1:])][:-1]))
    _, again = ask(["stories", "stories-draft"], task, path)
    assert again.columns == whole.columns

    _, turned = ask(["stories-draft", "stories"], task, path)
    assert turned.columns["kl_sum"] != whole.columns["kl_sum"]


def test_a_model_with_another_chat_template_is_another(tmp_path):
    folder = shutil.copytree(locate("stories-draft"), tmp_path / "model")

    def digest():
        return EvaluatedModel("model", read_any_checkpoint(folder), {}).fingerprint

    before = digest()
    assert digest() == before
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("user", "person"))
    assert digest() != before


def test_answers_that_nobody_reads_do_not_reach_the_next_question():
    checkpoint = read_any_checkpoint(locate("stories-draft"))
    with Session(EvaluatedModel("stories-draft", checkpoint, {}), timeout=60) as session:
        left = session.ask("options", [PROMPT, {**PROMPT, "context": "Tom saw"}])
        first = next(left)
        left.close()
        other = {**PROMPT, "continuations": [" and it ran away", " home"]}
        [answer] = session.ask("options", [other])
        assert len(answer["scores"]) == 2
        with pytest.raises(BackendError):
            list(session.ask("options", [{**PROMPT, "continuations": ["x " * 2000]}]))
        assert next(iter(session.ask("options", [PROMPT])))["scores"] == first["scores"]
