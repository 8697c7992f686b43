"""The parts of a token are its steps, and products read what the weights hold."""

import pytest

from edgellm.bench.studies.token_profile import profile, weight_bytes
from edgellm.kernels.codegen.abi import FLOAT_MATVEC, INT8_MATVEC
from edgellm.kernels.host import unavailable
from edgellm.models.arithmetic import engine_for
from edgellm.open_llm import load
from edgellm.settings import DEFAULT_MODEL, LoadSettings

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("on_the_cpu"),
]


def step(layout, **arguments):
    row = [0] * 24
    for name, value in arguments.items():
        row[layout[name]] = value
    return row


def test_a_product_reads_codes_scales_and_biases():
    packed = step(INT8_MATVEC, out_features=10, groups=3)
    assert weight_bytes("edgellm_int8_matvec_4_64_bf16", packed) == 10 * 3 * (32 + 4)
    dense = step(FLOAT_MATVEC, out_features=10, in_features=64)
    assert weight_bytes("edgellm_float_matvec_f16", dense) == 10 * 64 * 2
    assert weight_bytes("edgellm_norm_bf16", dense) == 0


def test_the_parts_are_all_steps_of_a_token():
    with load(DEFAULT_MODEL) as llm:
        parts = profile(llm, engine_for(LoadSettings()), context=4, rounds=1)
        layers = llm.model.config.num_hidden_layers
    *kinds, everything, outside, token = parts
    assert sum(part.steps for part in kinds) == everything.steps == token.steps
    assert kinds[0].part == "products"
    # qkv, attention's output, gate and up, down; then the head
    assert kinds[0].steps == 4 * layers + 1
    assert kinds[0].megabytes == token.megabytes > 0
    assert outside.ms == pytest.approx(token.ms - everything.ms)
