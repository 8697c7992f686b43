"""Many tokens times a quantized weight's columns, in pairs of bfloat16 summed in float32."""

# T tokens, R rows of a weight, K its columns, n groups of a row

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import MATMUL, PAIR_ROWS, TOKEN_VECTORS, pair_strip
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import load_codes, to_bf16
from edgellm.kernels.codegen.values import BFLOAT, F32, I16, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.panel import Panel
from edgellm.kernels.matmul.result_writer import ResultWriter

_LANES = 16
_WORD = 4
_VECTOR = _LANES * _WORD
_COLUMNS = 8
"""Columns that are summed at once, for two vectors of tokens: 16 sums of 32 registers."""


def emit_pair_matmul(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``pair_matmul``: ``out (+)= x @ weight``, (T, K) of (T, R) and (R, K).

    Codes less the middle one are exact in bfloat16. What scales and biases belong to is a row and a
    group of columns, so for the columns of a group ``x`` is scaled and rounded once; what biases
    add is summed in float32 as it is.

    The arguments are those of ``abi.MATMUL``, with ``in_features`` R, a multiple of 16, and
    ``out_features`` K; activations are packed words, and ``block_rows`` columns a thread takes.
    """
    return _PairMatmul(isa, name, weight_format).emit()


class _PairMatmul:
    """A thread takes a strip of columns of one group, and ``PAIR_ROWS`` rows at a time.

    Its scratch holds

        turned   (lanes, strip) float32: see ``ResultWriter``
        results  (ceil(T / 32), strip, 32) float32
        added    (ceil(T / 16), 16) float32: what biases add to every column
        factors  (2, PAIR_ROWS) float32: scales, then biases of the middle codes
        codes    (strip, PAIR_ROWS) bfloat16, less the middle code
        scaled   (ceil(T / 16), PAIR_ROWS / 2, 16) pairs of bfloat16
    """

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e: Emitter = Emitter(isa, name, MATMUL)
        e = self.e
        self.format = weight_format
        self.strip: int = pair_strip(weight_format.group)
        self.rows: Value = e.argument("in_features")
        self.columns: Value = e.argument("out_features")
        self.activations: Value = e.address("activations")
        self.panel: Panel = Panel(
            e,
            weight_format,
            weight=e.address("weight"),
            scales=e.address("scales"),
            biases=e.address("biases"),
            in_features=self.columns,
        )
        self.token_vectors: Value = e.ceil_div(e.tokens, _LANES)
        self.floats: Value = vector(F32, _LANES)
        turned = e.scratch
        self.writer: ResultWriter = ResultWriter(e, turned)
        self.results: Value = e.at(turned, 4 * _LANES * self.strip)
        pairs = e.ceil_div(self.token_vectors, TOKEN_VECTORS)
        self.pair_bytes: int = TOKEN_VECTORS * _VECTOR * self.strip
        self.added: Value = e.at(self.results, e.mul(pairs, self.pair_bytes))
        self.factors: Value = e.at(self.added, e.mul(self.token_vectors, _VECTOR))
        self.codes: Value = e.at(self.factors, 2 * 4 * PAIR_ROWS)
        self.scaled: Value = e.at(self.codes, 2 * PAIR_ROWS * self.strip)

    def emit(self) -> str:
        """Return the text of the function."""
        e = self.e
        parallel_for(e, e.div(self.columns, self.strip), self.one_strip)
        return e.finish()

    def one_strip(self, item: Value) -> None:
        """Write the results of a strip of columns."""
        e = self.e
        first_column = e.mul(item, self.strip)
        zeros = e.const(self.floats, 0.0)
        e.loop(
            0,
            e.mul(self.token_vectors, _VECTOR),
            lambda place: e.store(zeros, self.added, place),
            step=_VECTOR,
        )

        def some_rows(first_row: Value) -> None:
            count = e.min(PAIR_ROWS, e.sub(self.rows, first_row))
            e.loop(0, count, lambda place: self.read_factors(first_row, place, first_column))
            e.loop(
                0, count, lambda place: self.turn_codes(first_row, place, first_column), step=_LANES
            )
            e.loop(0, self.token_vectors, lambda part: self.scale(first_row, count, part))
            self.multiply(first_row, count)

        e.loop(0, self.rows, some_rows, step=PAIR_ROWS)
        e.loop(0, self.token_vectors, lambda part: self.write(first_column, part))

    def read_factors(self, first_row: Value, place: Value, first_column: Value) -> None:
        """Write a row's scale, and its bias with the middle code's share."""
        e = self.e
        group = e.div(first_column, self.format.group)
        scale, bias = self.panel.scale_and_bias(e.add(first_row, place), group)
        offset = e.mul(place, 4)
        e.store(scale, self.factors, offset)
        middle = e.fma(scale, e.const(F32, float(self.middle)), bias)
        e.store(middle, e.at(self.factors, 4 * PAIR_ROWS), offset)

    @property
    def middle(self) -> int:
        """The code that is taken from each."""
        return 1 << (self.format.bits - 1)

    def turn_codes(self, first_row: Value, place: Value, first_column: Value) -> None:
        """Write 16 rows of the strip's codes, turned, as bfloat16."""
        e, bits = self.e, self.format.bits
        words = vector(I32, _LANES)
        sources = [
            e.at(
                self.panel.weight,
                e.mul(e.add(first_row, e.add(place, number)), self.panel.row_bytes),
            )
            for number in range(_LANES)
        ]

        def one_square(column: Value) -> None:
            offset = e.b.lshr(e.mul(e.add(first_column, column), bits), e.index(3))
            lines = []
            for source in sources:
                codes = load_codes(e, source, offset, bits, _LANES)
                numbers = e.b.sitofp(e.b.sub(codes, e.const(words, self.middle)), self.floats)
                lines.append(e.b.bitcast(numbers, words))
            for number, line in enumerate(e.transpose(lines)):
                # the upper half holds all digits of so small a number
                halves = e.b.trunc(e.b.lshr(line, e.const(words, 16)), vector(I16, _LANES))
                row = e.mul(e.add(column, number), 2 * PAIR_ROWS)
                e.store(halves, self.codes, e.add(row, e.mul(place, 2)))

        e.loop(0, self.strip, one_square, step=_LANES)

    def scale(self, first_row: Value, count: Value, part: Value) -> None:
        """Write a vector of tokens scaled, in pairs; add what the biases add."""
        e = self.e
        first = e.mul(e.add(e.mul(part, self.rows), first_row), _VECTOR)
        source = e.at(self.activations, first)
        target = e.at(self.scaled, e.mul(part, PAIR_ROWS // 2 * _VECTOR))
        biases = e.at(self.factors, 4 * PAIR_ROWS)
        order = [lane + side * _LANES for lane in range(_LANES) for side in (0, 1)]

        def one_pair(place: Value, total: Value) -> Sequence[Value]:
            scaled = []
            for side in range(2):
                row = e.add(place, side)
                numbers = e.load(source, e.mul(row, _VECTOR), self.floats)
                bias = e.broadcast(e.load(biases, e.mul(row, 4), F32, align=4), _LANES)
                total = e.fma(numbers, bias, total)
                scale = e.broadcast(e.load(self.factors, e.mul(row, 4), F32, align=4), _LANES)
                scaled.append(e.b.fmul(numbers, scale))
            pairs = e.shuffle(to_bf16(e, e.concat(scaled)), order)
            e.store(pairs, target, e.mul(place, _VECTOR // 2))
            return [total]

        place = e.mul(part, _VECTOR)
        before = e.load(self.added, place, self.floats)
        [total] = e.loop(0, count, one_pair, [before], step=2)
        e.store(total, self.added, place)

    def multiply(self, first_row: Value, count: Value) -> None:
        """Add the products of some rows with all tokens to the results."""
        e = self.e
        is_first = e.b.icmp_unsigned("==", first_row, e.index(0))
        words = vector(I32, _LANES)
        pairs_of_numbers = vector(BFLOAT, 2 * _LANES)
        part_bytes = PAIR_ROWS // 2 * _VECTOR

        def some_tokens(first_part: Value, vectors: int) -> None:
            inputs = e.at(self.scaled, e.mul(first_part, part_bytes))
            pair = e.at(self.results, e.mul(e.div(first_part, TOKEN_VECTORS), self.pair_bytes))

            def some_columns(column: Value) -> None:
                row = e.mul(column, TOKEN_VECTORS * _VECTOR)
                places = [
                    e.at(pair, e.add(row, (TOKEN_VECTORS * i + part) * _VECTOR))
                    for i in range(_COLUMNS)
                    for part in range(vectors)
                ]
                zeros = e.const(self.floats, 0.0)
                before = [
                    e.b.select(is_first, zeros, e.load(place, 0, self.floats)) for place in places
                ]
                codes = [
                    e.at(self.codes, e.mul(e.add(column, i), 2 * PAIR_ROWS))
                    for i in range(_COLUMNS)
                ]

                def one_pair(place: Value, *sums: Value) -> Sequence[Value]:
                    numbers = [
                        e.b.bitcast(
                            e.load(
                                inputs, e.add(e.mul(place, 16 * _WORD), part_bytes * part), words
                            ),
                            pairs_of_numbers,
                        )
                        for part in range(vectors)
                    ]
                    added = []
                    for i, line in enumerate(codes):
                        word = e.load(line, e.mul(place, _WORD), I32, align=4)
                        weights = e.b.bitcast(e.broadcast(word, _LANES), pairs_of_numbers)
                        for part, number in enumerate(numbers):
                            total = sums[i * vectors + part]
                            added.append(_dot(e, total, number, weights))
                    return added

                sums = e.loop(0, e.div(count, 2), one_pair, before)
                for place, total in zip(places, sums, strict=True):
                    e.store(total, place, 0)

            e.loop(0, self.strip, some_columns, step=_COLUMNS)

        together = e.round_down(self.token_vectors, TOKEN_VECTORS)
        e.loop(0, together, lambda part: some_tokens(part, TOKEN_VECTORS), step=TOKEN_VECTORS)
        e.loop(together, self.token_vectors, lambda part: some_tokens(part, 1))

    def write(self, first_column: Value, part: Value) -> None:
        """Write the results of a vector of tokens, with what biases add."""
        e = self.e
        pair = e.mul(e.div(part, TOKEN_VECTORS), self.pair_bytes)
        source = e.at(self.results, e.add(pair, e.mul(e.rem(part, TOKEN_VECTORS), _VECTOR)))
        added = e.load(self.added, e.mul(part, _VECTOR), self.floats)

        def add(column: Value) -> None:
            place = e.mul(column, TOKEN_VECTORS * _VECTOR)
            e.store(e.b.fadd(e.load(source, place, self.floats), added), source, place)

        e.loop(0, self.strip, add)
        self.writer.write(source, first_column, e.index(self.strip), part)


def _dot(e: Emitter, total: Value, x: Value, y: Value) -> Value:
    """Add the two products of each lane to it."""
    return e.call("llvm.x86.avx512bf16.dpbf16ps.512", total.type, [total, x, y])
