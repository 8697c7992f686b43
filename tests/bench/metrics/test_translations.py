"""BLEU and chrF: sums of statistics give what sacrebleu says of the whole."""

import random
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.metrics.translations import translation_columns, translation_signatures
from edgellm.errors import BackendError, ConfigError, EdgeLLMError

ANSWERS = [
    "Wie viele Bälle fing Josh Norman ab?",
    "Wer hat die meisten Sacks im Team?",
    "Das Haus.",
    "",
    "der die das der die das",
]
REFERENCES = [
    ["Wie viele Bälle fing Josh Norman?", "Wie viele Bälle hat Josh Norman gefangen?"],
    ["Wer hatte in dieser Saison die meisten Sacks im Team?", "Wer hatte die meisten?"],
    ["Das Haus.", "Ein Haus."],
    ["Nichts", "Gar nichts"],
    ["völlig anders", "etwas anderes"],
]
# sacrebleu 2.6.0: BLEU().corpus_score(ANSWERS, streams), CHRF().corpus_score(ANSWERS, streams)
BLEU, CHRF = 55.5095986841787, 68.2084492823802


def of_columns(answers, references, language=""):
    rows = [
        translation_columns(answer, wanted, language=language)
        for answer, wanted in zip(answers, references, strict=True)
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def values(columns):
    return METRICS["bleu"].of(columns), METRICS["chrf"].of(columns)


@pytest.fixture
def sacrebleu():
    return pytest.importorskip("sacrebleu.metrics")


@pytest.mark.usefixtures("sacrebleu")
def test_values_are_those_written_down_from_sacrebleu():
    assert values(of_columns(ANSWERS, REFERENCES)) == pytest.approx((BLEU, CHRF), abs=1e-9)


@pytest.mark.parametrize("language", ["", "zh"])
def test_any_resample_has_the_values_that_sacrebleu_gives_it(sacrebleu, language):
    chance = random.Random(3)
    letters = "abcdefg 的 一 。 ."
    texts = ["".join(chance.choices(letters, k=chance.randrange(30))) for _ in range(40)]
    answers = ["".join(c for c in text if chance.random() < 0.9) for text in texts]
    references = [[text] for text in texts]
    columns = of_columns(answers, references, language)
    bleu, chrf = sacrebleu.BLEU(trg_lang=language, force=True), sacrebleu.CHRF()
    for size in (1, 2, 5, 40):
        taken = [chance.randrange(40) for _ in range(size)]
        said, streams = [answers[one] for one in taken], [[texts[one] for one in taken]]
        weights = np.bincount(taken, minlength=40)[None]
        for metric, scorer in (("bleu", bleu), ("chrf", chrf)):
            (value,) = METRICS[metric].of_sums(weights @ METRICS[metric].statistics(columns))
            assert value == pytest.approx(scorer.corpus_score(said, streams).score, abs=1e-9)


@pytest.mark.usefixtures("sacrebleu")
def test_perfect_lines_of_few_tokens_have_bleu_0_and_chrf_100():
    columns = of_columns(["Das Haus."] * 3, [["Das Haus."]] * 3)
    assert values(columns) == (0.0, pytest.approx(100.0))
    assert values(of_columns(["a b c d"], [["a b c d"]])) == pytest.approx((100.0, 100.0))


@pytest.mark.usefixtures("sacrebleu")
@pytest.mark.parametrize(
    # sacrebleu 2.6.0: BLEU().corpus_score([answer], [["a b c d e f"]]).score
    ("answer", "bleu"),
    [("a x b y c z", 10.682175159905853), ("a b x y c z", 17.965205598154213)],
)
def test_orders_without_a_match_are_smoothed(answer, bleu):
    assert values(of_columns([answer], [["a b c d e f"]]))[0] == pytest.approx(bleu, abs=1e-9)


@pytest.mark.usefixtures("sacrebleu")
def test_the_signature_says_how_to_get_the_same_numbers():
    signatures = translation_signatures(language="zh-CN", references=[2])
    assert signatures["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:zh|smooth:exp|version:2.")
    assert signatures["chrf"].startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.")
    assert "nrefs:var" in translation_signatures(references={1, 3})["chrf"]
    assert "tok:13a" in translation_signatures(language="de")["bleu"]


@pytest.mark.usefixtures("sacrebleu")
def test_a_translation_needs_a_reference():
    with pytest.raises(ConfigError, match="no reference"):
        translation_columns("a", [])


@pytest.mark.usefixtures("sacrebleu")
def test_a_tokenizer_that_is_not_installed_says_what_to_install():
    if find_spec("MeCab") is not None:
        pytest.skip("MeCab is installed")
    with pytest.raises(EdgeLLMError) as raised:
        translation_columns("猫", ["猫"], language="ja_JP")
    assert "sacrebleu[ja]" in raised.value.hint


def test_without_sacrebleu_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(BackendError, match="need sacrebleu") as raised:
        translation_columns("a", ["b"], language="xx")
    assert raised.value.hint == "pip install '.[eval]'"
