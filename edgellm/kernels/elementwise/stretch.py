"""Results of a product multiplied by a factor each, as DoRA's rows are."""

from __future__ import annotations

from edgellm.kernels.codegen.abi import STRETCH
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, Value, vector


def emit_stretch(isa: Isa, name: str, target: str) -> str:
    """Emit ``stretch``: ``out[t] = factors * source[t]``, a token an item.

    The arguments are those of ``abi.STRETCH``; where ``target`` is ``add`` and not ``set``, the
    products are added to what is there.
    """
    e = Emitter(isa, name, STRETCH)
    source = e.address("source")
    source_stride = e.argument("source_stride")
    factors = e.address("factors")
    out = e.address("out")
    out_stride = e.argument("out_stride")
    out_features = e.argument("out_features")

    def one_token(token: Value) -> None:
        row = e.at(source, e.mul(token, source_stride))
        out_row = e.at(out, e.mul(token, out_stride))

        def stretch(place: Value, lanes: int) -> None:
            offset = e.mul(place, 4)
            kind = vector(F32, lanes)
            results = e.b.fmul(e.load(row, offset, kind), e.load(factors, offset, kind))
            if target == "add":
                results = e.b.fadd(e.load(out_row, offset, kind), results)
            e.store(results, out_row, offset)

        e.sweep(out_features, stretch)

    parallel_for(e, e.tokens, one_token)
    return e.finish()
