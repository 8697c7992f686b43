"""`edgellm bench parity`: what is compared, and what is said of it."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support import tiny

from edgellm.bench.commands.parity import describe_texts
from edgellm.bench.evaluation.divergence import LogitComparison, log_softmax
from edgellm.bench.evaluation.parity import ParitySettings, Side, compare, sides_of
from edgellm.bench.evaluation.parity_worker import greedy
from edgellm.cli.app import main
from edgellm.converters import convert
from edgellm.errors import BackendError, ConfigError

VOCABULARY = 50


def random_logits(seed, rows=70):
    return np.random.RandomState(seed).standard_normal((rows, VOCABULARY)).astype(np.float32) * 3


def test_equal_logits_agree_in_everything():
    logits, ids = random_logits(0), np.random.RandomState(1).randint(0, VOCABULARY, 70).tolist()
    found = LogitComparison()
    found.add(logits, logits, ids)
    fields = found.as_fields()
    assert fields["tokens"] == 70
    assert fields["max_logit_difference"] == fields["kl"] == fields["kl_max"] == 0
    assert fields["top1_agreement"] == 1
    assert fields["perplexity"] == fields["reference_perplexity"]


def test_the_figures_are_those_of_their_definitions():
    first, second = random_logits(2), random_logits(3)
    ids = np.random.RandomState(4).randint(0, VOCABULARY, 70).tolist()
    found = LogitComparison()
    # two windows: the last token of each predicts nothing
    found.add(first[:40], second[:40], ids[:40])
    found.add(first[40:], second[40:], ids[40:])
    fields = found.as_fields()
    probabilities = [
        np.exp(part.astype(np.float64)) / np.exp(part.astype(np.float64)).sum(-1, keepdims=True)
        for part in (first, second)
    ]
    divergences = (probabilities[0] * np.log(probabilities[0] / probabilities[1])).sum(-1)
    pairs = [(row, ids[row + 1]) for row in range(69) if row != 39]
    for side, name in enumerate(("reference_perplexity", "perplexity")):
        loss = -np.mean([np.log(probabilities[side][row, token]) for row, token in pairs])
        assert fields[name] == pytest.approx(math.exp(loss))
    assert fields["kl"] == pytest.approx(divergences.mean())
    assert fields["kl_max"] == pytest.approx(divergences.max())
    assert fields["top1_agreement"] == pytest.approx(np.mean(first.argmax(-1) == second.argmax(-1)))
    assert fields["max_logit_difference"] == pytest.approx(np.abs(first - second).max())


def test_logits_that_cannot_be_compared_are_an_error():
    logits = random_logits(5)
    with pytest.raises(BackendError, match="reference of"):
        LogitComparison().add(logits, logits[:, :40], [0] * 70)
    broken = logits.copy()
    broken[3, 3] = np.nan
    with pytest.raises(BackendError, match="logits are NaN"):
        LogitComparison().add(logits, broken, [0] * 70)


def test_large_logits_do_not_overflow():
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]]))).all()


def test_the_first_is_what_the_others_are_compared_with():
    assert sides_of(["a", "b"], ["edgellm"]) == [Side("a", "edgellm"), Side("b", "edgellm")]
    assert sides_of(["a"], ["edgellm", "cpu"])[0] == Side("a", "edgellm")
    with pytest.raises(ConfigError, match="nothing to be compared with"):
        sides_of(["a", "a"], ["edgellm"])
    with pytest.raises(ConfigError, match="no backend 'cpuu'"):
        sides_of(["a"], ["edgellm", "cpuu"])


class Echo:
    """A runtime that holds the last token's successor for the likeliest."""

    def logits(self, tokens):
        return np.eye(VOCABULARY, dtype=np.float32)[[(token + 1) % VOCABULARY for token in tokens]]


def test_a_runtime_that_only_gives_logits_goes_on_greedily():
    assert greedy(Echo(), [3, 7], 4) == [8, 9, 10, 11]


@pytest.fixture
def two_folders(tiny_folder, tmp_path):
    """A model in 16 bits, and in 4."""
    source = tiny_folder("llama-3.2", dtype=mx.bfloat16)
    convert(str(source), tmp_path / "four", bits=4, group_size=32)
    return source, tmp_path / "four"


def test_a_quantization_is_compared_with_its_source(two_folders):
    settings = ParitySettings(text=" ".join(tiny.TEXTS), tokens=60, window=40, new_tokens=8)
    (record,) = compare(sides_of([str(folder) for folder in two_folders], ["edgellm"]), settings)
    assert record.error is None
    assert (record.bits, record.reference_bits) == (4, 16)
    assert record.tokens == 60
    assert 0 < record.kl < 1
    assert record.kl <= record.kl_max
    assert 0.3 < record.top1_agreement <= 1
    assert record.perplexity > 1
    assert record.reference_perplexity > 1
    assert 0 <= record.equal_tokens <= 8
    assert record.text_equal == (record.equal_tokens == 8) == (record.text == record.reference_text)
    assert any("compared with edgellm" in line for line in describe_texts([record]))


@pytest.mark.torch
def test_the_command_prints_one_document_and_one_object_a_pair(two_folders, capfd):
    options = (
        "--backend edgellm,cpu --activations float --kv-bits 32 --dtype float32 "
        "--tokens 40 --new-tokens 6 --threads 1 --json"
    )
    code = main(["bench", "parity", str(two_folders[1]), *options.split()])
    document = json.loads(capfd.readouterr().out)
    (pair,) = document["records"]
    assert code == 0
    assert {
        "max_logit_difference",
        "kl",
        "top1_agreement",
        "perplexity",
        "text_equal",
    } <= pair.keys()
    assert pair["kl"] < 1e-6
    assert pair["top1_agreement"] == 1
    assert pair["text_equal"] is True
    assert pair["arithmetic"] == "torch float32, codes dequantized"


def test_a_backend_that_fails_is_a_record_and_the_exit_status(two_folders, tmp_path, capfd):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(tiny.TEXTS))
    options = ["--backend", "edgellm,cuda", "--text", str(text), "--tokens", "20", "--json"]
    code = main(["bench", "parity", str(two_folders[1]), *options])
    (pair,) = json.loads(capfd.readouterr().out)["records"]
    if pair["error"] is None:  # there is a GPU
        assert code == 0
    else:
        assert code == 1
        assert "GPU" in pair["error"] or "torch" in pair["error"]
        assert pair["kl"] is None


def test_texts_that_cannot_be_compared_are_said(two_folders, tmp_path, capfd):
    short = tmp_path / "short.txt"
    short.write_text("Hi")
    assert main(["bench", "parity", *map(str, two_folders), "--text", str(short)]) == 2
    assert "the text has" in capfd.readouterr().err
    assert main(["bench", "parity", str(two_folders[0]), "stories"]) == 2
    assert "split the text differently" in capfd.readouterr().err
    missing = ["--backend", "edgellm", "--text", str(tmp_path / "none")]
    assert main(["bench", "parity", str(two_folders[0]), *missing]) == 2
    capfd.readouterr()
