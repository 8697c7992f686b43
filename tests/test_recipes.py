"""Recipes make records that say what their stories hold."""

import random
import re
import sys

import pytest
from support.paths import ROOT

STORIES = [
    "Once upon a time, there was a little dog named Spot. Spot had a red ball. He ran to the park. "
    "A cat took the ball. Spot was sad, and then the cat gave it back to him.",
    "One day, a girl named Lily went to the garden. She saw a big tree. There was a bird in it. "
    "The bird sang a song. Lily was happy, and she went home to her mom.",
]


@pytest.fixture
def recipe(monkeypatch):
    """Imports a module of a recipe, which finds those beside it."""
    monkeypatch.syspath_prepend(ROOT / "recipes" / "stories")

    def imported(name):
        for known in ("corpus", "instruct"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        return __import__(name)

    return imported


def test_every_story_is_in_the_records_once(recipe):
    corpus = recipe("corpus")
    made = corpus.records(STORIES, seed=3)
    texts = [corpus.text_of(one) for one in made]
    assert all(sum(story in text for text in texts) == 1 for story in STORIES)
    for one in made:
        roles = [message["role"] for message in one.get("messages", ())]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert one.keys() == ({"messages"} if roles else {"text"})


def test_answers_of_instructions_follow_from_their_input(recipe):
    instruct = recipe("instruct")
    rng = random.Random(0)
    made = [instruct.record_of(story, rng) for story in STORIES for _ in range(60)]
    asked = {one["instruction"] for one in made if one}
    assert len(asked) > 8
    for one in filter(None, made):
        given, answer = one["input"], one["output"]
        if answer.startswith("It is about"):
            assert re.search(r"named (Spot|Lily)\.$", answer)
        elif answer.startswith("No, "):
            assert answer.rstrip(".").split()[-1] not in re.findall(r"\w+", given.lower())
        elif answer.startswith(("Yes, ", "There is ")):
            nouns = re.findall(r"\ban? (\w+)", answer)
            assert nouns
            assert all(noun in re.findall(r"\w+", given.lower()) for noun in nouns)
        else:
            assert any(f"{given} {answer}" in story for story in STORIES)
