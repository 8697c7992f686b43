"""Tokens, their text and what they cost make a completion."""

import pytest

import edgellm


def test_the_answer_is_what_the_stream_yields(open_llm):
    llm = open_llm()
    tokens = list(llm.stream("Once upon a time", max_tokens=30))
    answer = llm.generate("Once upon a time", max_tokens=30)
    assert answer.text == "".join(token.text for token in tokens)
    assert answer.text == llm.tokenizer.decode([token.id for token in tokens])
    assert [token.finish_reason for token in tokens[:-1]] == [None] * 29
    assert all(token.stats is None for token in tokens[:-1])
    stats = tokens[-1].stats
    assert (stats.prompt_tokens, stats.completion_tokens) == (
        len(llm.tokenizer.encode("Once upon a time")),
        30,
    )
    assert 0 < stats.prefill_seconds <= stats.first_token_seconds
    assert stats.decode_seconds > 0
    assert stats.decode_tokens_per_second == pytest.approx(29 / stats.decode_seconds)
    assert (stats.weight_passes, stats.cached_tokens) == (0, 0)
    assert stats.resident_bytes >= llm.checkpoint.nbytes
    assert stats.peak_memory_bytes > stats.resident_bytes


def test_a_text_and_what_continues_it_read_as_one():
    """The bundled tokenizer marks words by a space before them; after token ids a text begins."""
    with edgellm.load("stories") as llm:
        for prompt in ("Once", "Once upon a", "The cat", "Lily and"):
            answer = llm.generate(prompt, max_tokens=8)
            ids = [token.id for token in answer.tokens]
            assert prompt + answer.text == llm.tokenizer.decode(
                [*llm.tokenizer.encode(prompt), *ids]
            )
            alone = llm.generate(llm.tokenizer.encode(prompt), max_tokens=8)
            assert alone.text == llm.tokenizer.decode(ids)
