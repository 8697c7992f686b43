"""The perplexity of documents, by the definition."""

import math

import numpy as np
import pytest

import edgellm
from edgellm.bench.evaluation.perplexity import measure, tokenize_documents

TEXT = "Once upon a time there was a cat. | | Tom has a red ball.|x"


@pytest.fixture(scope="module")
def llm():
    with edgellm.load("stories") as opened:
        yield opened


def test_documents_are_split_cut_and_blank_ones_left_out(llm):
    documents = list(tokenize_documents(llm, TEXT, separator="|", window=5))
    texts = [llm.tokenizer.encode(text)[:5] for text in ("Once upon a time there was", "Tom has a")]
    assert documents[0] == texts[0]
    assert documents[1][:3] == texts[1][:3]
    assert all(1 < len(ids) <= 5 for ids in documents)


def test_perplexity_is_the_exponential_of_the_mean_loss(llm):
    documents = list(tokenize_documents(llm, TEXT, separator="|", window=64))
    found = measure(llm, documents)
    losses = []
    for ids in documents:
        logits = np.array(llm.logits(ids[:-1]), dtype=np.float64)  # (L, V)
        logarithms = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-logarithms[place, token] for place, token in enumerate(ids[1:])]
    assert found.tokens == len(losses)
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert measure(llm, documents, limit=1).tokens == len(documents[0]) - 1
