"""RMS norm of each token's features (Zhang and Sennrich 2019, arXiv:1910.07467)."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import NORM, NORM_BACKWARD
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES


def emit_norm(isa: Isa, name: str, kind: str, result: str = "stored") -> str:
    """Emit ``norm``: ``out = x / sqrt(mean(x^2) + eps) * weight``, a token an item.

    The arguments are those of ``abi.NORM``; the weight is of ``kind``. The result is ``stored``, or
    ``added`` to what is there.
    """
    e = Emitter(isa, name, NORM)
    x = e.address("x")
    weight = e.address("weight")
    out = e.address("out")
    hidden = e.argument("hidden")
    row_bytes = e.argument("row_bytes")
    sizes = {"features": hidden, "eps": e.argument("eps", F32)}

    def one_token(token: Value) -> None:
        start = e.mul(token, row_bytes)
        source = e.at(x, start)
        target = e.at(out, start)
        normalize(e, source, target, weight=weight, kind=kind, add=result == "added", **sizes)

    parallel_for(e, e.tokens, one_token)
    return e.finish()


def emit_norm_backward(isa: Isa, name: str, kind: str) -> str:
    """Emit ``norm_backward``: derivatives by what was normed.

    With r = 1 / sqrt(mean(x^2) + eps) and g = by_out * weight they are
    ``r g - x r^3 mean(x g)``. The arguments are those of ``abi.NORM_BACKWARD``.
    """
    e = Emitter(isa, name, NORM_BACKWARD)
    features, eps = e.argument("hidden"), e.argument("eps", F32)
    weight = e.address("weight")

    def one_token(token: Value) -> None:
        start = e.mul(e.mul(token, features), 4)
        x, by_out, by_x = (e.at(e.address(rows), start) for rows in ("x", "by_out", "by_x"))

        def numbers(place: Value, lanes: int) -> tuple[Value, Value]:
            offset, floats = e.mul(place, 4), vector(F32, lanes)
            weights = load_floats(e, weight, e.mul(place, ITEM_BYTES[kind]), kind, lanes)
            return e.load(x, offset, floats), e.b.fmul(e.load(by_out, offset, floats), weights)

        def add(place: Value, lanes: int, squares: Value, products: Value) -> Sequence[Value]:
            own, by_own = numbers(place, lanes)
            return [e.fma(own, own, squares), e.fma(own, by_own, products)]

        zeros = e.const(vector(F32, e.isa.lanes), 0.0)
        sums = [e.reduce_sum(own) for own in e.sweep(features, add, [zeros, zeros])]
        count = e.b.uitofp(features, F32)
        squares = e.b.fdiv(e.b.fadd(sums[0], sums[2]), count)
        products = e.b.fdiv(e.b.fadd(sums[1], sums[3]), count)
        root = e.unary("sqrt", e.b.fadd(squares, eps))
        factor = e.b.fdiv(e.const(F32, 1.0), root)
        # r^3 mean(x g)
        share = e.b.fmul(e.b.fmul(factor, factor), e.b.fmul(factor, products))

        def differentiate(place: Value, lanes: int) -> None:
            own, by_own = numbers(place, lanes)
            scaled = e.b.fmul(by_own, e.broadcast(factor, lanes))
            taken = e.b.fmul(own, e.broadcast(share, lanes))
            e.store(e.b.fsub(scaled, taken), by_x, e.mul(place, 4))

        e.sweep(features, differentiate)

    parallel_for(e, e.tokens, one_token)
    return e.finish()


def normalize(
    e: Emitter,
    source: Value,
    target: Value,
    *,
    weight: Value,
    kind: str,
    features: Value,
    eps: Value,
    add: bool = False,
) -> None:
    """Write the RMS norm of a row times a weight of ``kind``; the target may be the source.

    With ``add`` it is added to what is there.
    """

    def add_squares(place: Value, lanes: int, total: Value) -> Sequence[Value]:
        numbers = e.load(source, e.mul(place, 4), vector(F32, lanes))
        return [e.fma(numbers, numbers, total)]

    zeros = e.const(vector(F32, e.isa.lanes), 0.0)
    vector_sums, remainder_sum = e.sweep(features, add_squares, [zeros])
    # (lanes,) and (1,) to one number
    total = e.b.fadd(e.reduce_sum(vector_sums), e.reduce_sum(remainder_sum))
    mean = e.b.fdiv(total, e.b.uitofp(features, F32))
    factor = e.b.fdiv(e.const(F32, 1.0), e.unary("sqrt", e.b.fadd(mean, eps)))

    def scale(place: Value, lanes: int) -> None:
        numbers = e.load(source, e.mul(place, 4), vector(F32, lanes))
        weights = load_floats(e, weight, e.mul(place, ITEM_BYTES[kind]), kind, lanes)
        # scaled first and weighted then, as MLX rounds it
        scaled = e.b.fmul(numbers, e.broadcast(factor, lanes))
        result = e.b.fmul(scaled, weights)
        if add:
            result = e.b.fadd(e.load(target, e.mul(place, 4), vector(F32, lanes)), result)
        e.store(result, target, e.mul(place, 4))

    e.sweep(features, scale)
