"""Answers that are held to a grammar, beside jsonschema."""

import json
import re

import jsonschema
import numpy as np
import pytest

from edgellm import ConfigError, Grammar, Sampling
from edgellm.structured.constraint import constraint_for

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"enum": ["metric", "imperial"]},
        "hours": {"type": "array", "items": {"type": "integer", "maximum": 23}, "maxItems": 3},
    },
    "required": ["city", "days", "units", "hours"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm():
    import edgellm

    with edgellm.load("stories", memory="500MB", threads=1) as opened:
        yield opened


def is_valid(completion, schema=SCHEMA):
    """Whether an answer is valid, or was cut."""
    if completion.finish_reason == "length":
        return True
    assert completion.finish_reason == "stop"
    jsonschema.validate(json.loads(completion.text), schema)
    return True


def test_answers_are_valid_by_their_schema(llm):
    grammar = Grammar.json_schema(SCHEMA)
    greedy = llm.generate("Once", grammar=grammar, max_tokens=120)
    assert greedy.finish_reason == "stop"
    assert is_valid(greedy)
    drawn = [Sampling(temperature=1, seed=seed, max_tokens=120, grammar=grammar) for seed in (1, 2)]
    alone = [llm.generate("Once", sampling) for sampling in drawn]
    assert all(map(is_valid, alone))
    together = llm.generate_batch(["Once"] * 2, drawn)
    assert [one.text for one in together] == [one.text for one in alone]


@pytest.mark.parametrize(
    ("grammar", "form"),
    [
        (Grammar.choices(["yes", "no", 'say "maybe"']), 'yes|no|say "maybe"'),
        (Grammar.regex("[0-9]{4}-(0[1-9]|1[0-2])"), "[0-9]{4}-(0[1-9]|1[0-2])"),
        (
            Grammar.lark('start: word (" " word)~2\nword: /[a-z]{2,4}/'),
            "[a-z]{2,4}( [a-z]{2,4}){2}",
        ),
    ],
)
def test_answers_have_the_form_of_other_grammars(llm, grammar, form):
    for temperature in (0, 1):
        answer = llm.generate("Once", grammar=grammar, temperature=temperature, seed=3)
        assert answer.finish_reason == "stop"
        assert re.fullmatch(form, answer.text)


def test_a_grammar_is_followed_with_bias(llm):
    grammar = Grammar.choices(["yes", "no"])
    no = [token for token in range(4096) if llm.tokenizer.token_bytes(token) in {b"n", b"no"}]
    answer = llm.generate("Once", grammar=grammar, logit_bias=dict.fromkeys(no, 100))
    assert answer.text == "no"
    banned = {token: float("-inf") for token in range(llm.config.vocab_size - 1)}
    with pytest.raises(ConfigError, match="no token is left"):
        llm.generate("Once", grammar=grammar, logit_bias=banned)


def test_beam_search_and_other_values_are_refused():
    with pytest.raises(ConfigError, match="beam search follows no grammar"):
        Sampling(beams=2, grammar=Grammar.json_object())
    with pytest.raises(ConfigError, match=r"it must be an edgellm\.Grammar"):
        Sampling(grammar={"type": "object"})


def test_draft_tokens_are_held_to_the_grammar(llm):
    import edgellm

    grammar = Grammar.json_schema(SCHEMA)
    plain = llm.generate("Once", grammar=grammar, max_tokens=120).text
    with edgellm.load("stories", draft="stories-draft", memory="500MB", threads=1) as drafting:
        answer = drafting.generate("Once", grammar=grammar, max_tokens=120)
        assert answer.text == plain
        drawn = [
            drafting.generate("Once", grammar=grammar, temperature=1.0, seed=seed, max_tokens=120)
            for seed in range(2)
        ]
    assert all(map(is_valid, drawn))
    stats = [one.tokens[-1].stats for one in (answer, *drawn)]
    assert sum(one.drafted_tokens for one in stats) > 0


def test_a_grammar_goes_on_where_an_answer_gave_way(llm):
    """Another answer takes the model in the middle; tokens that nobody read are drawn again."""
    grammar = Grammar.json_schema(SCHEMA)
    sampling = Sampling(grammar=grammar, temperature=1, seed=5, max_tokens=120)
    whole = llm.generate("Once", sampling)
    stream = llm.stream("Once", sampling)
    tokens = [next(stream) for _ in range(7)]
    llm.generate("Once upon", max_tokens=2)
    tokens += list(stream)
    assert "".join(token.text for token in tokens) == whole.text


def test_logits_beyond_the_vocabulary_stay_out(llm):
    """Heads of models are often wider than their vocabularies."""
    grammar, ends, size = Grammar.choices(["yes", "no"]), frozenset({2}), llm.config.vocab_size
    narrow = constraint_for(grammar, llm.tokenizer, ends, size - 3).ceiling()
    wide = constraint_for(grammar, llm.tokenizer, ends, size + 100).ceiling()
    allowed = {llm.tokenizer.token_bytes(int(token)) for token in np.flatnonzero(wide > 0)}
    assert allowed == {b"y", b"ye", b"n"}  # of "yes" and "no"; longer ones are no tokens here
    np.testing.assert_array_equal(narrow, wide[: size - 3])
    assert not (wide[size:] > 0).any()
    assert (len(narrow), len(wide)) == (size - 3, size + 100)


def test_an_answer_ends_with_an_error_where_a_mask_is_too_much_work(llm):
    """Of two answers side by side the other one goes on."""
    grammar = Grammar.lark(
        "start: part*\npart: " + " | ".join(f"/[a-z]{{{n}}}x/" for n in range(1, 2600))
    )
    hard, easy = llm.generate_batch(
        ["Once", "Once"], [Sampling(grammar=grammar), Sampling(max_tokens=3)]
    )
    assert (hard.finish_reason, easy.finish_reason) == ("error", "length")
    assert "cannot be held to its grammar" in hard.tokens[-1].error.message


def test_a_blank_that_is_not_shown_is_not_the_grammars(llm):
    """SentencePiece begins a text with a blank: so may an answer that begins one."""
    grammar = Grammar.choices(["yes", "no"])
    blank = dict.fromkeys((llm.tokenizer.token_to_id("▁"),), 100)
    prompt = llm.tokenizer.encode("Once")
    for some, first in ((prompt, "▁"), ("Once", "y")):
        answer = llm.generate(some, grammar=grammar, logit_bias=blank)
        assert answer.text in {"yes", "no"}
        is_blank = llm.tokenizer.id_to_token(answer.tokens[0].id) == "▁"
        assert is_blank == (first == "▁")
