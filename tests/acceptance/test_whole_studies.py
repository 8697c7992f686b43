"""Studies of the bundled model, whole: what each part is worth, what mixed bits gain."""

import mlx.core as mx
import pytest
from support.tiny import TEXTS

import edgellm
from edgellm.bench.ablation.ablate import ABLATIONS, AblationSettings, measure_ablations
from edgellm.converters import convert
from edgellm.hub.resolve import locate

pytestmark = pytest.mark.slow

QUICK = AblationSettings(prompt_tokens=8, tokens=2, repetitions=1, threads=1)

STORY = """\
Lily had a red kite. One windy day she took it to the hill with her dad. "Hold it tight," he \
said. Lily ran and ran, and
the kite went up into the sky. Then the wind pulled very hard, and the string slipped out of her \
hand. The kite flew
away. Lily began to cry. A boy saw it land in a big tree. He climbed up and brought it down. \
"Thank you!" said Lily. "Do
you want to play with me?" The boy smiled and said yes. They played until the sun went down, and \
from that day on they
were good friends.
"""


def test_every_part_of_the_bundled_model_is_left_out_in_turn():
    records = list(measure_ablations("stories", QUICK))
    assert [record.error for record in records] == [None] * len(ABLATIONS)
    assert [record.variant for record in records] == [ablation.title for ablation in ABLATIONS]
    found = {(record.without, record.memory_bytes is not None): record for record in records}
    for paged in (False, True):
        assert found[None, paged].slowdown == 1
    assert all(len(record.seconds) == 1 and record.slowdown > 0 for record in records)
    assert (found["quantization", False].bits, found[None, False].bits) == (16, 4)
    assert found[None, False].bytes_per_token == 0
    whole, bare = found[None, True], found["pinning", True]
    assert 0 < whole.pinned_layers < whole.layers
    assert bare.pinned_layers == 0
    assert bare.bytes_per_token > whole.bytes_per_token > 0
    assert found["prefetch", True].bytes_per_token == whole.bytes_per_token


def test_on_the_bundled_model_mixed_is_better_than_uniform_of_the_same_size(tmp_path):
    (tmp_path / "text").write_text(" ".join(TEXTS) + STORY[:250])
    uniform = convert(locate("stories"), tmp_path / "uniform", bits=3)
    mixed = convert(
        locate("stories"),
        tmp_path / "mixed",
        recipe="mixed",
        average_bits=3.5,
        calibration=tmp_path / "text",
    )
    assert mixed.weight_bytes <= uniform.weight_bytes
    losses = []
    for path in (tmp_path / "uniform", tmp_path / "mixed"):
        with edgellm.load(path, memory="500MB") as llm:
            ids = llm.tokenizer.encode(STORY[250:])
            logits = llm.logits(ids[:-1])
            chosen = mx.take_along_axis(logits, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
            losses.append(float(mx.mean(mx.logsumexp(logits, axis=-1) - chosen)))
    assert losses[1] < losses[0] - 0.01
