"""Questions to models: their answers and times, and what happens where there are none."""

import os
import subprocess
import time

import pytest

from edgellm.bench.queries.queries import measure_queries
from edgellm.bench.queries.questions import QUESTIONS, QuerySettings, read_questions
from edgellm.bench.statistics.amdahl import scalings
from edgellm.errors import ConfigError


def test_the_five_questions():
    assert len(QUESTIONS) == 5
    assert all("\n" not in question for question in QUESTIONS)


def test_questions_come_from_a_file(tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("Who?\n\n  Why?  \n")
    assert read_questions(file) == ("Who?", "Why?")
    file.write_text("\n \n")
    with pytest.raises(ConfigError, match="holds no question"):
        read_questions(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_questions(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_questions(tmp_path / "none.txt")


def test_every_answer_and_time_is_recorded_and_threads_are_compared():
    settings = QuerySettings(threads=(1, 2), max_tokens=4, repetitions=2)
    found = list(measure_queries(["stories", "no-such-model"], QUESTIONS[:2], settings))
    assert [(record.model, record.threads, record.question) for record in found[:-1]] == [
        ("stories", threads, question) for threads in (1, 2) for question in QUESTIONS[:2]
    ]
    for record in found[:-1]:
        assert record.error is None
        assert record.answer
        assert len(record.seconds) == len(record.first_token_seconds) == 2
        assert record.tokens == 4
        assert record.finish_reason == "length"
        assert record.model_bytes
        assert record.as_dict()["seconds_per_token"] == pytest.approx(record.median_seconds / 4)
    assert found[0].answer == found[2].answer, "the likeliest tokens, whatever the threads"
    assert "no-such-model" in found[-1].error
    assert set(scalings(found)) == {"stories"}
    assert set(scalings(found)["stories"].seconds) == {1, 2}


def test_a_question_that_does_not_fit_fails_alone():
    found = list(
        measure_queries(
            ["stories"], ["word " * 3000, "Hello"], QuerySettings(threads=(1,), max_tokens=2)
        )
    )
    assert "context" in found[0].error
    assert found[1].answer


def test_a_worker_that_dies_fails_the_questions_that_are_left_at_once():
    questions = ["One?", "Two?", "Three?"]

    def kill_at_the_second_question(status):
        if status.doing == "Two?":
            worker = ["pkill", "-KILL", "-P", str(os.getpid()), "-f", "bench.queries.worker"]
            subprocess.run(worker, check=True)

    settings = QuerySettings(threads=(1,), max_tokens=2, timeout=60.0)
    begun = time.monotonic()
    first, *others = measure_queries(
        ["stories"], questions, settings, progress=kill_at_the_second_question
    )
    assert first.answer
    assert [record.question for record in others] == ["Two?", "Three?"]
    assert all("the system killed it" in record.error for record in others)
    assert time.monotonic() - begun < settings.timeout
