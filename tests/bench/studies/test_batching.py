"""The study of batches: what it measures, and the goal that it sets."""

import pytest
from support.bench_records import speed

import edgellm
from edgellm.bench.studies.batching import measure, verdict


def test_one_sequence_a_batch_and_a_prompt_take_turns():
    with edgellm.load("stories", speculate="off", context=400) as llm:
        records = measure(llm, name="stories", batch=2, steps=2, rounds=2)
    assert [(record.test, record.batch, record.tokens) for record in records] == [
        ("tg2", 1, 2),
        ("tg2", 2, 2),
        ("pp256", 1, 256),
    ]
    assert all(len(record.seconds) == 2 and min(record.seconds) > 0 for record in records)


@pytest.mark.parametrize(
    ("prompt_seconds", "goal"), [([0.25], "3.20"), ([0.5], "1.60"), ([], "6.00")]
)
def test_the_goal_is_bounded_by_the_batch_and_by_the_arithmetic(prompt_seconds, goal):
    one, many = speed(seconds=(1.0,)), speed(seconds=(2.0,), batch=8)
    batch = 4 if prompt_seconds else 8
    prompt = [speed(seconds=(taken,)) for taken in prompt_seconds]
    assert verdict([one, many, *prompt], batch=batch) == (
        f"{batch} sequences: 4.00 times the tokens/s of one; goal {goal}"
    )
