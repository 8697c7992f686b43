"""Runs of real models over small tasks: outcomes, pairs, costs, and runs that go on."""

import json
import math
from dataclasses import replace

import pytest
from support.adapters import factors, write_peft

import edgellm
from edgellm.bench.evaluation.runs.decoding import parse_decodings
from edgellm.bench.evaluation.runs.evaluate import evaluate
from edgellm.bench.evaluation.runs.measures import Measures, Rater
from edgellm.bench.evaluation.runs.run import EvaluatedModel, Run
from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.bench.evaluation.runs.settings import Ask, EvaluationSettings
from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint

STORIES = ("Once upon a time, there was a little dog. He was happy.", "Lily saw a big red ball.")
ROWS = {
    "choose": [
        {"id": f"c{n}", "question": text, "choices": ["and it ran", "qwx zzk"], "answer": 0}
        for n, text in enumerate(["The dog was happy", "Tom saw a cat", "She had a ball"])
    ],
    "answers": [
        {"id": f"a{n}", "context": text, "question": "Who is it about?", "answers": ["dog", "Lily"]}
        for n, text in enumerate(STORIES)
    ],
    "texts": [{"id": f"t{n}", "text": text} for n, text in enumerate(STORIES)],
    "begun": [{"id": "b0", "prompt": "Once upon a time"}, {"id": "b1", "prompt": "Tom had a"}],
}
SETTINGS = EvaluationSettings(
    shots=(0, 1), decodings=parse_decodings("greedy,sample"), max_tokens=6, load={"memory": None}
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return {name: read_task(folder / f"{name}.jsonl") for name in ROWS}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return tmp_path_factory.mktemp("samples") / "samples.jsonl"


@pytest.fixture(scope="module")
def records(tasks, samples):
    asked = [tasks["choose"], tasks["texts"], tasks["begun"]]
    return list(evaluate(["stories", "stories-draft"], asked, SETTINGS, Samples(samples)))


def one(records, **wanted):
    [found] = [
        record
        for record in records
        if all(getattr(record, name) == value for name, value in wanted.items())
    ]
    return found


def test_every_model_is_asked_in_every_way(records):
    ways = {(one.model, one.task, one.shots, one.decoding) for one in records}
    assert len(records) == len(ways) == 2 * (2 + 1 + 2)
    assert all(record.error is None for record in records)


def test_options_are_scored_as_the_python_door_scores_them(records, tasks):
    record = one(records, model="stories", task="choose", shots=0)
    questions = tasks["choose"].questions(shots=1)
    prompts = tasks["choose"].prompts(questions).prompts
    with edgellm.load("stories") as llm:
        for place, prompt in enumerate(prompts):
            scores = llm.score([(prompt.context, text) for text in prompt.continuations])
            assert record.columns["right_logprob"][place] == scores[0].logprob
    assert record.metrics["accuracy"] == 1.0
    assert record.question_ids == tuple(question.id for question in questions)


def test_texts_are_compared_with_the_references(records, tasks):
    reference, other = (
        one(records, model=model, task="texts") for model in ("stories", "stories-draft")
    )
    assert "kl_sum" not in reference.columns
    with edgellm.load("stories") as llm:
        context, text = "", ROWS["texts"][0]["text"]
        [score] = llm.score([(context, text)])
    assert reference.columns["nll"][0] == pytest.approx(-score.logprob)
    assert other.columns["kl_tokens"][0] == len(score.ids)
    assert other.columns["kl_sum"][0] > 0
    assert 0 <= other.columns["top1_agreed"][0] <= len(score.ids)


def test_the_reference_scores_what_models_write(records):
    for record in (one for one in records if one.task == "begun"):
        tokens = record.columns["reference_tokens"]
        assert all(0 < count <= 8 for count in tokens)
        assert all(
            math.isfinite(value) and value < 0 for value in record.columns["reference_logprob"]
        )
    greedy, drawn = (
        one(records, model="stories", task="begun", shots=0, decoding=decoding)
        for decoding in ("greedy", "sample")
    )
    assert sum(greedy.columns["reference_logprob"]) > sum(drawn.columns["reference_logprob"])


def test_runs_of_one_way_to_ask_share_a_hash(records):
    for task, shots in (("choose", 0), ("choose", 1)):
        first, second = (
            one(records, model=model, task=task, shots=shots)
            for model in ("stories", "stories-draft")
        )
        assert first.prompt_hash == second.prompt_hash
        assert first.question_hashes == second.question_hashes
    without, with_shot = (one(records, model="stories", task="choose", shots=n) for n in (0, 1))
    assert without.prompt_hash != with_shot.prompt_hash
    assert without.first_prompt == with_shot.first_prompt
    assert ROWS["choose"][0]["question"] in without.first_prompt
    assert len(without.first_options) == len(ROWS["choose"][0]["choices"])


def test_costs_are_counted(records):
    record = one(records, model="stories", task="choose", shots=1)
    assert 0 < record.layer_tokens < record.tokens
    assert 0 < record.head_rows <= record.layer_tokens
    assert len(record.first_token_seconds) == 2
    assert record.peak_memory_bytes > record.model_bytes


def test_a_whole_run_is_not_asked_again(tasks, samples, records):
    asked = [tasks["choose"], tasks["begun"]]
    read = Samples(samples, resume=True)
    before = samples.read_bytes()
    again = list(evaluate(["stories", "stories-draft"], asked, SETTINGS, read))
    assert samples.read_bytes() == before
    for record in again:
        known = one(
            records,
            model=record.model,
            task=record.task,
            shots=record.shots,
            decoding=record.decoding,
        )
        assert record.columns == known.columns
        assert record.seconds == known.seconds


def test_a_stopped_run_asks_the_rest(tasks, tmp_path):
    samples = Samples(tmp_path / "samples.jsonl")
    settings = EvaluationSettings(max_tokens=4)
    rater = Rater("judge", lambda asked, answer: 3.0 + asked.count("Lily"))
    asked = ["stories-draft"], [tasks["answers"]], settings
    whole = next(iter(evaluate(*asked, samples, rater=rater)))
    assert whole.columns["judge"] == (3.0, 4.0)
    assert whole.metrics["rating"] == 3.5
    lines = (tmp_path / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text(lines[0])
    told = []
    part = Samples(tmp_path / "part.jsonl", resume=True)
    [again] = evaluate(*asked, part, rater=rater, progress=told.append)
    assert again.columns == whole.columns
    assert again.layer_tokens is None, "of a part it would say too little"
    assert [status.number for status in told if status.doing == "asking"] == [2, 3]


def test_a_model_that_is_not_there_is_a_record_with_its_error(tasks):
    settings = EvaluationSettings()
    [record] = evaluate(["./no-such-model"], [tasks["choose"]], settings, Samples(None))
    assert "no-such-model" in record.error


def test_rows_that_are_new_or_edited_are_asked(samples, records, tmp_path):
    known = one(records, model="stories-draft", task="choose", shots=0)
    rows = [dict(row) for row in ROWS["choose"]]
    rows[1]["question"] = "Nothing at all"
    (tmp_path / "choose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "samples.jsonl").write_bytes(samples.read_bytes())
    read = Samples(tmp_path / "samples.jsonl", resume=True)
    task = read_task(tmp_path / "choose.jsonl")
    [record] = evaluate(["stories-draft"], [task], replace(SETTINGS, shots=(0,)), read)

    assert len(known.question_ids) == 2
    assert len(record.question_ids) == 3, "as many as there are without examples"
    before, now = known.columns["right_logprob"], record.columns["right_logprob"]
    assert now[0] == before[0]
    assert now[1] != before[1]
    assert record.layer_tokens is None, "of a part it would say too little"


def test_a_comparison_that_was_stopped_is_made_whole(tasks, samples, records, tmp_path):
    known = one(records, model="stories-draft", task="texts")
    lines = samples.read_text().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if "kl_sum" in line)
    (tmp_path / "samples.jsonl").write_text("".join(lines[: place + 1]))
    read = Samples(tmp_path / "samples.jsonl", resume=True)
    _, record = evaluate(["stories", "stories-draft"], [tasks["texts"]], SETTINGS, read)
    assert record.columns == known.columns


def test_another_reference_compares_logits_anew(tasks, samples, records, tmp_path):
    task, read = tasks["texts"], Samples(samples, resume=True)
    run = Run(Ask(task), task.prompts(task.questions()), SETTINGS)
    load = {"memory": None, "threads": None, "kv_bits": None}
    models = {
        name: EvaluatedModel(name, read_any_checkpoint(locate(name)), load)
        for name in ("stories", "stories-draft")
    }
    measured = Measures(models["stories"], read, tmp_path, None)
    assert measured.has_compared(run, models["stories-draft"])
    measured = Measures(models["stories-draft"], read, tmp_path, None)
    assert not measured.has_compared(run, models["stories-draft"])
    read.close()


def test_outcomes_of_a_model_with_an_adapter_are_not_those_of_the_model(tmp_path):
    checkpoint = read_any_checkpoint(locate("stories"))
    path = "model.layers.0.self_attn.q_proj"
    down, up = factors((checkpoint.config.hidden_size, checkpoint.config.hidden_size), 1)
    tensors = {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    folders = [write_peft(tmp_path / name, tensors) for name in ("tuned", "same")]
    other = write_peft(tmp_path / "other", tensors, lora_alpha=1)
    settings = EvaluationSettings(adapters=(None, *map(str, [*folders, other])), threads=(1, 2))
    models = [EvaluatedModel("stories", checkpoint, load) for load in settings.loads()]
    titles = ["stories", "stories + tuned", "stories + same", "stories + other"]
    assert [model.fields["model"] for model in models[::2]] == titles
    alone, tuned, same, changed = (model.key for model in models[::2])
    assert tuned == same
    assert len({alone, tuned, changed}) == 3
    assert alone == EvaluatedModel("stories", checkpoint, {"threads": 1, "kv_bits": None}).key
