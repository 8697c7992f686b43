"""A model answers the harness' requests: what is likely, whole texts, and generated answers."""

import pytest
from support import tiny

from edgellm.bench.evaluation.harness.adapter import Adapter
from edgellm.errors import ConfigError, ContextError, TemplateError


@pytest.fixture(scope="module")
def llm(tiny_folder):
    import edgellm

    with edgellm.load(
        tiny_folder("llama-3.2"), memory="500MB", threads=1, context=64, activations="float"
    ) as model:
        yield model


def test_likelihoods_are_those_of_the_tokens(llm):
    adapter = Adapter(llm)
    requests = [("Once upon", " a time"), ("Once upon", " the dog"), ("", "Once"), ("x " * 90, "b")]
    questions = [("t", 0), ("t", 0), ("t", 1), ("t", 2)]
    scores = adapter.loglikelihoods(requests, questions)
    for (context, answer), (logprob, _) in zip(requests[:3], scores, strict=False):
        score = llm.score([(context, answer)])[0]
        assert logprob == pytest.approx(score.logprob, abs=1e-4)
    ids = llm.tokenizer.encode("x " * 90 + "b")
    # the end of the context, with as many tokens as there is room for
    pair = (ids[-65:-1], ids[-1:])
    assert scores[3][0] == pytest.approx(llm.score([pair])[0].logprob, abs=1e-3)
    assert [adapter.counts.cut_tokens[one] for one in questions] == [0, 0, 0, len(ids) - 65]
    assert adapter.counts.layer_tokens > 0
    assert adapter.seconds > 0


def test_a_whole_text_is_scored_after_one_beginning(llm):
    text = "Once upon a time there was a little dog. " * 5
    ids = llm.tokenizer.encode(text)
    adapter = Adapter(llm)
    (whole,) = adapter.rolling_loglikelihoods([text], [("p", 3)])
    assert adapter.counts.text_tokens["p", 3] == len(ids) - 1
    windows = [([ids[0]], ids[1:65]), (ids[len(ids) - 65 : 65], ids[65:])]
    assert len(ids) <= 129
    expected = sum(score.logprob for score in llm.score(windows))
    assert whole == pytest.approx(expected, abs=1e-3)
    (twice,) = Adapter(llm, like_harness=True).rolling_loglikelihoods(["Once"], [("p", 0)])
    pair = ([tiny.BEGIN], llm.tokenizer.encode("Once"))
    assert twice == pytest.approx(llm.score([pair])[0].logprob, abs=1e-4)


def test_answers_end_at_stop_texts_and_lengths(llm):
    told = []
    adapter = Adapter(llm, progress=lambda done, total: told.append((done, total)))
    free = llm.generate("Once upon", max_tokens=6).text
    stop = free[2:4]
    requests = [
        ("Once upon", {"until": [], "max_gen_toks": 6}),
        ("Once upon", {"until": stop, "max_gen_toks": 6}),
        ("x " * 90, {"max_gen_toks": 4}),
        ("Once upon", {"max_gen_toks": 3, "num_beams": 2}),
    ]
    texts = adapter.generate(requests, [("g", number) for number in range(4)])
    assert texts[0] == free
    assert texts[1] == free[: free.index(stop)]
    ids = llm.tokenizer.encode("x " * 90)
    assert texts[2] == llm.generate(ids[-60:], max_tokens=4).text
    assert texts[3] == llm.generate("Once upon", max_tokens=3, beams=2).text
    assert adapter.counts.cut_tokens["g", 2] == len(ids) - 60
    assert adapter.counts.answer_tokens["g", 0] == 6
    assert told[-1] == (4, 4)
    drawn = {"temperature": 2.0, "max_gen_toks": 8}
    again = [Adapter(llm, seed=1).generate([("a", drawn)] * 2, [("g", 0)] * 2) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0] != again[0][1]
    with pytest.raises(ConfigError, match="new tokens"):
        adapter.generate([("a", {"max_gen_toks": 64})], [("g", 0)])
    with pytest.raises(ContextError):
        adapter.loglikelihoods([("a", "b " * 90)], [("t", 0)])


def test_conversations(llm):
    adapter = Adapter(llm)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes, "}]
    whole = llm.tokenizer.render(messages[:1], add_generation_prompt=True)
    assert adapter.render(messages[:1]) == whole
    # a message that the model continues is left open
    assert adapter.render(messages, add_generation_prompt=False).endswith("Yes,")
    with pytest.raises(TemplateError):
        adapter.render([{"role": "user", "content": object()}])
