"""Evaluations in a terminal: who is compared with whom, tables, sentences and pictures."""

import pytest
from support.bench_records import evaluation

from edgellm.bench.tables.evaluation_picture import NARROWEST, evaluation_picture
from edgellm.bench.tables.evaluation_runs import compared_runs, distinct_runs, frontier
from edgellm.bench.tables.evaluation_sentences import task_sentences, verdict_sentence
from edgellm.bench.tables.evaluation_tables import evaluation_tables

RIGHT = [1, 1, 1, 0] * 25
SLIGHTLY_WORSE = [0, *RIGHT[1:]]
WORSE = [0] * 40 + RIGHT[40:]

FULL = evaluation(RIGHT, model="models/llama-16bit")
FOUR = evaluation(SLIGHTLY_WORSE, model="models/llama-4bit", bits=4, model_bytes=4_500_000)
SMALL = evaluation(WORSE, model="models/draft", bits=8, model_bytes=8_000_000)


@pytest.fixture(scope="module")
def tasks():
    return compared_runs([FULL, FOUR, SMALL])


def names(runs):
    return [run.model for run in runs]


def test_each_run_is_paired_with_the_first_that_was_asked_the_same():
    few = [evaluation(RIGHT, model=name, shots=5, prompt_hash="b") for name in ("x", "y")]
    tasks = compared_runs([FULL, few[0], FOUR, few[1], evaluation(RIGHT, task="other")])
    runs = tasks["tickets"]
    assert [run.first for run in runs] == ["llama-16bit", "x", "llama-16bit", "x"]
    assert [run.letter for run in runs] == ["A", "B", "C", "D"]
    assert (runs[2].paired.better, runs[2].paired.worse) == (0, 1)
    assert tasks["other"][0].is_reference


def test_runs_that_asked_differently_are_not_compared_and_say_why():
    runs = compared_runs([FULL, FOUR, evaluation(RIGHT, model="x", prompt_hash="c")])["tickets"]
    assert runs[1].paired is not None
    assert runs[2].paired is None
    assert "different prompts" in verdict_sentence(runs[2])
    assert "not compared" in evaluation_tables({"tickets": runs})


def test_runs_with_other_shots_say_with_whom_they_are_compared():
    few = [evaluation(RIGHT, model=name, shots=5, prompt_hash="b") for name in ("x", "y")]
    said = task_sentences(compared_runs([FULL, *few, FOUR])["tickets"])
    assert said[0] == "not compared with A, which was asked with 0 shots: B, C"
    assert said[1] == "instead compared: C with B"
    pair = [evaluation(RIGHT, model=name, prompt_hash="b") for name in ("x", "y")]
    said = task_sentences(compared_runs([FULL, *pair])["tickets"])
    assert said[0] == "not compared with A, which has other prompts: B, C"
    twice = {"question_ids": ("q",) * 100, "question_hashes": ("q",) * 100}
    twice = evaluation(RIGHT, model="x", **twice)
    said = task_sentences(compared_runs([FULL, twice])["tickets"])
    assert "B: not compared: a question occurs twice in a run of 'tickets'" in said


def test_a_difference_over_fewer_questions_has_the_scores_of_these():
    part = evaluation(RIGHT[:25], model="part")
    said = "\n".join(task_sentences(compared_runs([SMALL, part])["tickets"]))
    assert "B: the difference is over the 25 questions that both runs were asked" in said
    assert "with accuracy 76.0 %, and 0.0 of draft; 75 questions" in said


def test_an_interval_without_0_and_no_verdict_are_explained():
    runs = compared_runs([evaluation([1] * 8), evaluation([0] * 5 + [1] * 3, model="x")])["tickets"]
    assert runs[1].paired.high < 0
    why = "the interval leaves 0 out, but 0 better and 5 worse may be chance, by the exact test"
    assert f"B: {why}: p is 0.062, not below 0.05" in task_sentences(runs)
    assert why in verdict_sentence(runs[1])


def test_what_follows_from_columns_is_shown_and_another_value_is_doubted():
    edited = evaluation(RIGHT, metrics={"accuracy": 7.0})
    table = evaluation_tables(compared_runs([edited]))
    assert "75.0 ±" in table
    assert "700.0" not in table
    [doubt] = edited.doubts
    assert "accuracy is 0.75, which is shown, and not 7" in str(doubt)
    assert FULL.doubts == []


def test_one_answer_to_all_questions_is_named_by_its_label():
    told = {"columns": FULL.columns | {"predicted": (1.0,) * 100}, "first_options": (" a", " b")}
    labels = compared_runs([evaluation(RIGHT, task_kind="classify", **told)])["tickets"]
    assert "every question got “b” as its answer" in task_sentences(labels)[0]
    choices = compared_runs([evaluation(RIGHT, **told)])["tickets"]
    assert "every question got option 2 as its answer" in task_sentences(choices)[0]


def test_ratings_are_shown_and_no_heading_is_cut():
    metrics = {"accuracy": 0.75, "rating": 7.0}
    told = {"metrics": metrics, "columns": FULL.columns | {"judge": (7.0,) * 100}}
    rated = evaluation(RIGHT, model="a-model-with-a-long-name", peak_memory_bytes=10**9, **told)
    for shown in ({"width": 80}, {"wide": True}):
        table = evaluation_tables(compared_runs([rated, FOUR]), **shown)
        assert "rating" in table
        assert "7.00" in table
        assert "asked/s  tokens/s  first token  peak memory" in table


def test_the_same_answers_on_other_threads_are_one_comparison():
    slow = evaluation(RIGHT, model="models/llama-16bit", threads=1, step_seconds=(0.1,))
    many = [evaluation(WORSE, model="models/draft", bits=8, threads=count) for count in (1, 2, 4)]
    alone = compared_runs([slow, many[0]])["tickets"]
    runs = compared_runs([slow, *many])["tickets"]
    assert runs[3].paired.p_holm == alone[1].paired.p_holm, "not corrected for itself"
    assert names(distinct_runs(runs)) == ["llama-16bit", "draft"]
    again = compared_runs([slow, evaluation(RIGHT, model="copy")])["tickets"][1]
    assert verdict_sentence(again) == "copy: the same answers as llama-16bit"


def test_the_frontier_is_what_nothing_as_small_beats(tasks):
    assert names(frontier(tasks["tickets"])) == ["llama-16bit", "llama-4bit"]


def test_tables_fit_a_terminal_and_a_wide_one_has_every_metric(tasks):
    narrow = evaluation_tables(tasks, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    for text in ("tickets (choose, 100 questions, 0 shots)", "75.0 ± 4.4", "none seen", "worse"):
        assert text in narrow
    assert "first token" in narrow
    assert narrow.count("llama-4bit") == 2, "no third table that has nothing to show"
    assert "right answer, nats" not in narrow
    wide = evaluation_tables(tasks, wide=True)
    for head in ("right answer, nats", "better / worse", "p (Holm)", "first token"):
        assert head in wide.splitlines()[1]
    assert len(wide.splitlines()) == 2 + 3


def test_sentences_say_what_was_seen_and_what_cannot_be(tasks):
    _, four, small = tasks["tickets"]
    assert verdict_sentence(four).startswith(
        "llama-4bit: no difference seen in 100 questions (-1.0 points, -3.0 to 0.0); "
        "the right answers are 0.02 nats less likely"
    )
    assert "draft: worse in 100 questions (-30.0 points" in verdict_sentence(small)
    assert "beyond chance" in verdict_sentence(small)
    said = "\n".join(task_sentences(tasks["tickets"]))
    assert "100 questions cannot show a difference below" in said


def test_what_was_cut_tied_or_skipped_is_said():
    columns = FULL.columns | {"tie": (1.0, *[0.0] * 99), "cut": (1.0, 1.0, *[0.0] * 98)}
    runs = compared_runs([evaluation(RIGHT, columns=columns, skipped=3)])["tickets"]
    said = "\n".join(task_sentences(runs))
    assert "2 of 100 prompts did not fit" in said
    assert "1 of 100 questions had two likeliest options" in said
    assert "3 rows without a right answer" in said


def test_a_picture_has_each_run_at_its_size_and_score(tasks):
    picture = evaluation_picture(tasks, width=80, plain=True)
    assert picture.isascii()
    assert max(map(len, picture.splitlines())) <= 80
    drawn = picture.splitlines()[1:14]
    rows = {letter: row for row, line in enumerate(drawn) for letter in line if letter in "ABC"}
    places = {letter: line.index(letter) for line in drawn for letter in line if letter in "ABC"}
    assert rows["A"] <= rows["B"] < rows["C"], "the better the higher"
    assert places["B"] < places["C"] < places["A"], "the smaller the further left"
    assert evaluation_picture(tasks, width=NARROWEST - 1) == ""
    assert evaluation_picture({"tickets": tasks["tickets"][:1]}, width=80) == ""


def test_a_divergence_has_its_standard_error():
    def texts(model, **columns):
        columns = {"nll": (8.0, 9.0, 7.0), "bytes": (10.0, 10.0, 10.0), **columns}
        metrics = {"bits_per_byte": 1.0}
        told = {"task_kind": "text", "headline": "bits_per_byte", "metrics": metrics}
        return evaluation([0] * 3, model=model, columns=columns, **told)

    other = texts("b", kl_sum=(1.0, 2.0, 3.0), kl_tokens=(10.0, 10.0, 10.0))
    sentences = task_sentences(compared_runs([texts("a"), other])["tickets"])
    # of 0.1, 0.2 and 0.3: their standard deviation is 0.1, over the root of three
    assert sentences[0].endswith("nats: B 0.200 ± 0.058")


def test_texts_have_perplexities_and_a_divergence_with_its_error():
    runs = [
        evaluation(
            [1] * 8,
            model=model,
            task_kind="text",
            headline="bits_per_byte",
            metrics={"bits_per_byte": bits, "token_perplexity": 4.0} | more,
            columns={"nll": nll, "bytes": (4.0,) * 8} | kl,
        )
        for model, bits, nll, more, kl in (
            ("llama-16bit", 1.0, (2.0, 3.0, 4.0, 5.0) * 2, {}, {}),
            (
                "llama-4bit",
                1.2,
                (3.0, 4.0, 5.0, 6.5) * 2,
                {"kl": 0.25, "top1": 0.931},
                {"kl_sum": (1.0, 1.5, 0.5, 1.0) * 2, "kl_tokens": (4.0,) * 8},
            ),
        )
    ]
    tasks = compared_runs(runs)
    table = evaluation_tables(tasks, width=80)
    assert "tickets (text, 8 texts); lower is better" in table
    assert "ppl/token" in table
    assert "KL, nats" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    told = verdict_sentence(tasks["tickets"][1])
    assert told.endswith("; the likeliest token is another one in 6.9 % of places")
    assert "worse" in table
    (told,) = task_sentences(tasks["tickets"])
    assert told.startswith("KL from the first run")
    assert "B 0.250 ±" in told
