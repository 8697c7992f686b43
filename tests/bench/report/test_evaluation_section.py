"""Evaluations on the page: verdicts, plots, figures, and how they were asked."""

import re

from support.bench_records import evaluation

from edgellm.bench.report.html_report import as_html

RIGHT = [1, 1, 1, 0] * 10
WORSE = [0] * 12 + RIGHT[12:]
FULL = evaluation(RIGHT, model="llama-16bit")
FOUR = evaluation(WORSE, model="llama-4bit", bits=4, model_bytes=4_500_000)


def section_of(records):
    page = as_html(records)
    return page.partition("<h2>How good are the answers?")[2].partition("<h2>")[0]


def test_a_task_has_its_verdict_its_plot_and_its_figures():
    text = section_of([FULL, FOUR])
    assert "llama-4bit: worse in 40 questions (-22.5 points" in text
    assert text.count("<svg viewBox") == 1
    drawing = text.partition("<figure>")[2].partition("</figure>")[0]
    assert drawing.count('class="interval"') == 1, "the first is what the other is compared with"
    assert drawing.count('class="across"') == 1
    assert "llama-16bit: accuracy 75.0 ± 6.9 %; others are compared with it" in text
    assert "<dt>accuracy</dt><dd>questions whose right option" in text
    assert section_of([]) == ""


def test_a_failed_run_is_told_elsewhere_and_a_single_one_is_shown():
    failed = evaluation([1], error="no memory", metrics={}, model="m")
    assert "no memory" in as_html([failed])
    assert "<li>tickets, edgellm, eval, m</li>" in as_html([failed])
    assert section_of([failed]) == ""
    text = section_of([FULL])
    assert "accuracy" in text
    assert "<svg viewBox" not in text


def test_texts_of_models_and_files_are_escaped():
    evil = "<script>alert(1)</script>"
    records = [
        evaluation(
            RIGHT,
            model=f"{evil}{number}",
            task=evil,
            task_kind=evil,
            shot_text=f"{evil}\n\n  two",
            first_prompt=f"{evil}?",
            first_options=(" yes", evil),
            shots=number,
            decoding=f"{evil}{number}",
            model_bytes=number * 10**6,
            signatures={"accuracy": evil},
            metrics={"accuracy": 0.5, evil: 1.0},
        )
        for number in (1, 2)
    ]
    text = as_html(records)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10
    assert "two</div>" in text, "examples keep their lines"
    assert "?\n- yes\n- &lt;script" in text


def test_shots_threads_and_decoding_have_their_own_panels():
    shots = [
        evaluation(RIGHT, shots=count, shot_seed=seed, prompt_hash=f"{count}{seed}")
        for count, seed in ((0, 0), (1, 0), (1, 1), (5, 0))
    ]
    told = section_of([*shots, FULL])
    assert "tickets: examples" in told
    assert "which was asked with 0 shots" in told
    assert re.search(r"<td>1</td><td>2</td><td>75</td>", told), "two draws of one example"
    ways = [
        evaluation(
            RIGHT,
            task_kind="continue",
            headline="distinct_2",
            metrics={"distinct_2": 0.9, "repetition": 0.1, "rating": 7.0},
            columns={"distinct_2": (9.0,) * 40, "ngrams_2": (10.0,) * 40, "judge": (7.0,) * 40},
            decoding=decoding,
        )
        for decoding in ("greedy", "top-p:0.9")
    ]
    told = section_of(ways)
    assert "tickets: ways to decode" in told
    assert "tickets: score and time" in told
    assert "<td>top-p:0.9</td>" in told
    ways = told.partition("tickets: ways to decode")[2].partition("</table>")[0]
    assert ways.count("<td>7.00</td>") == 2
