"""Models in processes of their own: what tells them apart, and answers that go astray."""

import shutil

import pytest

from edgellm.bench.evaluation.runs.run import EvaluatedModel
from edgellm.bench.evaluation.runs.session import Session
from edgellm.errors import BackendError
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint

PROMPT = {
    "name": "c0",
    "context": "The dog was happy",
    "messages": [],
    "continuations": [" and it ran"],
}


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
    with Session(EvaluatedModel("stories-draft", checkpoint, {}), timeout=60, at_once=2) as session:
        left = session.ask("options", [PROMPT, {**PROMPT, "context": "Tom saw"}])
        first = next(left)
        left.close()
        other = {**PROMPT, "continuations": [" and it ran away", " home"]}
        [answer] = session.ask("options", [other])
        assert len(answer["scores"]) == 2
        with pytest.raises(BackendError):
            list(session.ask("options", [{**PROMPT, "continuations": ["x " * 2000]}]))
        with pytest.raises(BackendError, match="leave no room for a prompt"):
            list(session.ask("generated", [PROMPT], sampling={"max_tokens": 5000}))
        assert next(iter(session.ask("options", [PROMPT])))["scores"] == first["scores"]
        # some at a time, all of them
        three = [{**PROMPT, "continuations": [f" and it {word}"]} for word in ("ran", "sat", "ate")]
        parts = {each["place"]: each["scores"] for each in session.ask_many("options", three)}
        tokens = session.ended["tokens"]
        whole = {each["place"]: each["scores"] for each in session.ask("options", three)}
        assert tokens == session.ended["tokens"]
        assert sorted(parts) == sorted(whole) == [0, 1, 2]
        for place, mine in parts.items():
            [one], [other] = mine, whole[place]
            assert one["logprob"] == pytest.approx(other["logprob"], rel=0.01)
