"""Questions of the data, and the answers that are kept beside a run."""

import pytest
from support.tiny import LLAMA, write_model

from edgellm.tokenizer import Tokenizer
from edgellm.training.answers.kept_answers import FILE, KeptAnswers
from edgellm.training.answers.questions import choose_questions
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence, token_ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("m") / "model", LLAMA)
    return Tokenizer.from_folder(folder)


def sequence(tokenizer, *parts):
    """A sequence of texts, of which every second one is learned."""
    tokens, learned = [], []
    for place, text in enumerate(parts):
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens += ids
        learned += [place % 2 == 1] * len(ids)
    targets = [
        token if is_learned else NOT_ASKED
        for token, is_learned in zip(tokens[1:], learned[1:], strict=True)
    ]
    return TrainingSequence(token_ids(tokens), token_ids((*targets, NOT_ASKED)))


class Asked:
    """Answers as a model would, and counts."""

    def __init__(self):
        self.times = []

    def __call__(self, prompts, *, model, adapter):
        self.times.append((model, adapter))
        return [f"{model} {adapter} {len(prompt)}" for prompt in prompts]


def test_what_is_asked_stands_before_the_last_answer(tokenizer):
    one = sequence(tokenizer, "Who are you?", " Me.", " And he?", " A dog.")
    (question,) = choose_questions([one], tokenizer, count=3, seed=0)
    assert question.prompt == "Who are you? Me. And he?"
    assert question.expected == "A dog."


def test_of_a_text_the_beginning_is_to_be_continued(tokenizer):
    text = "One day a dog went to the sea and saw the sun."
    one = sequence(tokenizer, "", text)
    (question,) = choose_questions([one], tokenizer, count=1, seed=0)
    assert text.startswith(question.prompt)
    assert text.endswith(question.expected)
    assert len(question.tokens) == len(one.tokens) // 2


def test_questions_follow_from_the_seed_and_none_is_asked_twice(tokenizer):
    many = [sequence(tokenizer, f"Say {word}.", " No.") for word in ("a", "b", "c", "d", "a")]
    first = choose_questions(many, tokenizer, count=2, seed=5)
    assert first == choose_questions(many, tokenizer, count=2, seed=5)
    assert len(first) == 2
    assert len(choose_questions(many, tokenizer, count=9, seed=0)) == 4
    assert choose_questions([], tokenizer, count=3, seed=0) == []


def test_answers_before_outlive_a_run_that_is_stopped(tokenizer, tmp_path):
    many = [sequence(tokenizer, f"Say {word}.", " No.") for word in ("a", "b")]

    def answers(resume, count=2):
        ask = Asked()
        kept = KeptAnswers(tmp_path, ask, count=count, seed=0, resume=resume)
        kept.before(many, tokenizer, "base")
        return kept, ask

    kept, ask = answers(resume=False)
    kept.save()
    assert ask.times == [("base", None)]
    again, ask = answers(resume=True)
    assert ask.times == []
    assert again.shown == kept.shown
    again.after("base", tmp_path)
    again.save()
    assert ask.times == [("base", tmp_path)]
    assert all(one["after"].startswith(f"base {tmp_path}") for one in again.as_plain())
    _, ask = answers(resume=True, count=1)
    assert ask.times == [("base", None)], "other questions have other answers"
    (tmp_path / FILE).write_text('{"answers": [{"prompt": 1}, 2]}')
    _, ask = answers(resume=True)
    assert ask.times == [("base", None)]


def test_nothing_is_kept_where_nobody_asks_or_can(tokenizer, tmp_path):
    many = [sequence(tokenizer, "Say a.", " No.")]
    for ask, count in ((None, 3), (Asked(), 0), (lambda _prompts, **_: None, 3)):
        kept = KeptAnswers(tmp_path, ask, count=count, seed=0, resume=False)
        kept.before(many, tokenizer, "base")
        kept.after("base", None)
        kept.save()
        assert kept.as_plain() == []
    assert list(tmp_path.iterdir()) == []
