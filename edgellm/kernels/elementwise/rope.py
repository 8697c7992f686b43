"""Rotary positions (Su et al. 2021, arXiv:2104.09864), and the cache's new keys and values."""

from __future__ import annotations

from edgellm.kernels.attention.kv_storage import StoredRows, pack_row
from edgellm.kernels.codegen.abi import ROPE
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_chunks
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.elementwise.rms_norm import normalize

_ITEM_HEADS = 16
"""Heads that a thread takes at once."""


def emit_rope(
    isa: Isa, name: str, norm: str, kind: str = "f32", order: str = "normed_first"
) -> str:
    """Emit ``rope``: rotate queries in place, store rotated keys and plain values in the cache.

    Unless ``norm`` is ``plain``, queries and keys are normed, with weights of that kind, before
    they are rotated, or after it (``normed_last``).
    The arguments are those of ``abi.ROPE``; the cache is of ``kind``.
    """
    return _Rope(isa, name, norm, kind, order).emit()


class _Rope:
    def __init__(self, isa: Isa, name: str, norm: str, kind: str, order: str) -> None:
        self.e = e = Emitter(isa, name, ROPE)
        self.norm = norm
        self.normed_first = norm != "plain" and order == "normed_first"
        self.normed_last = norm != "plain" and order == "normed_last"
        self.kind = kind
        self.qkv = e.address("qkv")
        self.cos_sin = e.address("cos_sin")
        self.head_dim = e.argument("head_dim")
        self.heads = e.argument("heads")
        self.kv_heads = e.argument("kv_heads")
        self.keys = e.address("keys")
        self.values = e.address("values")
        self.head_bytes = e.argument("head_bytes")
        self.position = e.argument("position")
        self.token_heads = e.add(self.heads, e.mul(self.kv_heads, 2))  # H + 2G
        self.row_bytes = e.mul(self.head_dim, 4)
        self.half = e.div(e.argument("rotary_dim"), 2)

    def emit(self) -> str:
        e = self.e
        parallel_for_chunks(e, e.mul(e.tokens, self.token_heads), _ITEM_HEADS, self.one_head)
        return e.finish()

    def one_head(self, item: Value) -> None:
        """Rotate or store one head of one token: its queries come first, then keys, then values."""
        e = self.e
        token = e.div(item, self.token_heads)
        head = e.rem(item, self.token_heads)
        source = e.at(self.qkv, e.mul(item, self.row_bytes))  # (L, H + 2G, D)
        is_query = e.less(head, self.heads)
        is_value = e.b.not_(e.less(head, e.add(self.heads, self.kv_heads)))
        if self.normed_first:
            self.normalize_query_or_key(source, is_query, is_value)
        # of a key or a value; of a query it means nothing and is not used
        kv_head = e.rem(e.sub(head, self.heads), self.kv_heads)
        if self.kind == "f32":
            self.store_float32(source, token, kv_head, is_query, is_value)
        else:
            self.store_packed(source, token, kv_head, is_query, is_value)

    def normalize_query_or_key(self, head: Value, is_query: Value, is_value: Value) -> None:
        e = self.e
        weight = e.b.select(is_query, e.address("query_norm"), e.address("key_norm"))

        def normalize_in_place() -> None:
            eps = e.argument("eps", F32)
            sizes = {"features": self.head_dim, "eps": eps}
            normalize(e, head, head, weight=weight, kind=self.norm, **sizes)

        e.when(e.b.not_(is_value), normalize_in_place)

    def store_float32(
        self, source: Value, token: Value, kv_head: Value, is_query: Value, is_value: Value
    ) -> None:
        """Rotate from the activations to where the result belongs, or copy a value there."""
        e = self.e
        head = e.mul(kv_head, self.head_bytes)
        row = e.mul(e.add(self.position, token), self.row_bytes)
        offset = e.add(head, row)
        stored = e.at(e.b.select(is_value, self.values, self.keys), offset)
        target = e.b.select(is_query, source, stored)
        e.when(e.b.not_(is_value), lambda: self.rotate(source, target, token))
        # of a value all features are as they were, else those behind the rotated ones
        rotated = e.b.select(is_value, e.index(0), e.mul(self.half, 2))

        def copy(place: Value, lanes: int) -> None:
            offset = e.mul(e.add(rotated, place), 4)
            e.store(e.load(source, offset, vector(F32, lanes)), target, offset)

        e.sweep(e.sub(self.head_dim, rotated), copy)
        if self.normed_last:
            self.normalize_query_or_key(target, is_query, is_value)

    def store_packed(
        self, source: Value, token: Value, kv_head: Value, is_query: Value, is_value: Value
    ) -> None:
        """Rotate in place; then pack a key or a value into the cache."""
        e = self.e
        e.when(e.b.not_(is_value), lambda: self.rotate(source, source, token))
        if self.normed_last:
            self.normalize_query_or_key(source, is_query, is_value)
        # keys or values, by the head's number
        stored = StoredRows(
            *(
                e.b.select(is_value, e.address(of_values), e.address(of_keys))
                for of_values, of_keys in (
                    ("values", "keys"),
                    ("value_scales", "key_scales"),
                    ("value_biases", "key_biases"),
                )
            )
        )
        head_offset = e.mul(kv_head, self.head_bytes)
        row = e.add(self.position, token)

        def pack() -> None:
            pack_row(
                e,
                self.kind,
                stored,
                source=source,
                head_offset=head_offset,
                row=row,
                head_dim=self.head_dim,
            )

        e.when(e.b.not_(is_query), pack)

    def rotate(self, source: Value, target: Value, token: Value) -> None:
        """Rotate each feature x of the first half with its partner y of the second.

        ``x cos - y sin`` and ``x sin + y cos``; the table has a cosine for each x, then the sines.
        """
        e = self.e
        cos_sin = e.at(self.cos_sin, e.mul(token, self.row_bytes))

        def rotate_pairs(place: Value, lanes: int) -> None:
            floats = vector(F32, lanes)
            first = e.mul(place, 4)
            second = e.mul(e.add(place, self.half), 4)
            x = e.load(source, first, floats)
            y = e.load(source, second, floats)
            cosine = e.load(cos_sin, first, floats)
            sine = e.load(cos_sin, second, floats)
            e.store(e.b.fsub(e.b.fmul(x, cosine), e.b.fmul(y, sine)), target, first)
            e.store(e.fma(x, sine, e.b.fmul(y, cosine)), target, second)

        e.sweep(self.half, rotate_pairs)
