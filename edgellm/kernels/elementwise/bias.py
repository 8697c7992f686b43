"""The bias of a product, where a model has one."""

from __future__ import annotations

from edgellm.kernels.codegen.abi import BIAS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES


def emit_bias(isa: Isa, name: str, kind: str) -> str:
    """Emit ``bias``: ``out[t] += bias``, a token an item.

    The arguments are those of ``abi.BIAS``; the bias is of ``kind``.
    """
    e = Emitter(isa, name, BIAS)
    out = e.address("out")
    out_stride = e.argument("out_stride")
    bias = e.address("bias")
    out_features = e.argument("out_features")

    def one_token(token: Value) -> None:
        # results of several matrices may stand side by side in a row
        row = e.at(out, e.mul(token, out_stride))

        def add_bias(place: Value, lanes: int) -> None:
            results = e.load(row, e.mul(place, 4), vector(F32, lanes))
            biases = load_floats(e, bias, e.mul(place, ITEM_BYTES[kind]), kind, lanes)
            e.store(e.b.fadd(results, biases), row, e.mul(place, 4))

        e.sweep(out_features, add_bias)

    parallel_for(e, e.tokens, one_token)
    return e.finish()
