"""A decoder layer as steps: norm, products, rotary positions, attention, gate, residuals."""

# L new tokens, E hidden, H query heads, G key/value heads, D head size, F inner

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgellm.kernels.codegen.abi import (
    APART,
    ATTENTION,
    GROUP_BYTES,
    MERGE,
    NORM,
    ROPE,
    STEP_TOKENS,
    SWIGLU,
    slots,
)
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    StepArray,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.kernels.layer import Branches, KVView, LayerShape, LayerWeights, Vector
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.kernels.sequence_steps import (
    SEQUENCE_STEPS,
    CallSteps,
    Rows,
    Sequences,
    attention_kernels,
    partition,
    reserve_attention_scratch,
    write_paths,
    write_positions,
)

# Slots that differ from sequence to sequence, in the order of the mappings in codegen/abi.py.
_ROPE_KV = slots(ROPE, "keys", "head_bytes")
_ROPE_TABLES = slots(ROPE, "key_scales", "value_biases")
_ROPE_INPUT = slots(ROPE, "qkv", "cos_sin")
_ATTENTION_KV = slots(ATTENTION, "keys", "head_bytes")
_ATTENTION_TABLES = slots(ATTENTION, "key_scales", "value_biases")
_MERGE_ENDS = slots(MERGE, "partials", "out")


class LayerSteps:
    """One layer's steps, which read and write the engine's buffer ``hidden`` (L, E).

    The tokens may be of several sequences, side by side: products, norms and the gate see all of
    them at once. Rotary positions and attention go sequence by sequence: one after the other, each
    by all threads; or, where that keeps all threads busy, side by side, each by one thread.

    Args:
        engine: the kernels.
        shape: the shape of the layer.
        weights: of the layer; their memory has to stay where it is.
        tokens: the most that a call has.
        attends_only: whether they end with what attention returns, in the buffer ``attended``.
    """

    def __init__(
        self,
        engine: KernelEngine,
        shape: LayerShape,
        weights: LayerWeights,
        *,
        tokens: int,
        attends_only: bool = False,
    ) -> None:
        self.shape = shape
        self._engine, self._weights = engine, weights
        self.tokens = tokens
        self._attends_only = attends_only
        self._version = -1
        self._rope_at = 0  # the step of the layer that is rope; attention and merge follow
        self._one = CallSteps(step_array([]), step_array([]))
        self._several: dict[tuple[int, bool], CallSteps] = {}
        self._cache_kernels: dict[str, tuple[int, int, int]] = {}

    def prepare(self, sequences: Sequences, *, whole_keys: bool = False) -> CallSteps:
        """Return the steps of a call; the caller holds the engine's lock.

        They stand until the next call with as many sequences, or until the workspace moves.

        Args:
            sequences: in the order of their tokens: keys and values, and how many new tokens.
            whole_keys: whether keys are never split, as for many tokens.
        """
        heads, head_dim = self.shape.heads, self.shape.head_dim
        parts = partition(self._engine, sequences, whole_keys=whole_keys)
        partial_bytes = 4 * heads * (head_dim + 2)
        workspace = self._engine.workspace
        workspace.reserved("partials", partial_bytes * sum(parts.partials))
        workspace.reserved("groups", GROUP_BYTES * len(sequences))
        # making steps can move memory that earlier steps were made with
        while self._version != workspace.version:
            self._version = workspace.version
            self._make()
        call = self._call_steps(len(sequences), apart=parts.apart)

        one_rope, one_attention, one_merge = self._one.by_sequence
        queries = int(one_attention[ATTENTION["queries"]])
        row_bytes = int(one_attention[ATTENTION["row_bytes"]])
        cos_sin = int(one_rope[ROPE["cos_sin"]])
        partial = int(one_attention[ATTENTION["partials"]])
        out = int(one_merge[MERGE["out"]])
        steps = iter(call.by_sequence)
        for (view, tokens), own, count in zip(sequences, parts.splits, parts.partials, strict=True):
            rope, attention, merge = next(steps), next(steps), next(steps)
            rope[0], *of_few_and_many = self._kernels(view.kind)
            attention[0] = of_few_and_many[own.whole]
            rope[_ROPE_KV] = attention[_ATTENTION_KV] = (view.keys, view.values, view.head_bytes)
            rope[_ROPE_TABLES] = attention[_ATTENTION_TABLES] = view.tables
            if len(sequences) > 1:
                rope[_ROPE_INPUT] = (queries, cos_sin)
                attention[ATTENTION["queries"]] = queries
                attention[ATTENTION["partials"]] = partial
                merge[_MERGE_ENDS] = (partial, out)
                rope[STEP_TOKENS] = attention[STEP_TOKENS] = merge[STEP_TOKENS] = tokens
            # on to the next sequence's rows
            queries += tokens * row_bytes
            cos_sin += 4 * tokens * head_dim
            partial += partial_bytes * count
            out += 4 * tokens * heads * head_dim
        write_positions(self._engine, self.shape, Rows(call.by_sequence), sequences, parts.splits)
        return call

    def prepare_tree(self, branches: Sequences) -> CallSteps:
        """Return the steps of a call whose sequences are the branches of a tree of tokens.

        They go one after the other, over the same positions of a cache, and what a later one is
        written over is also stored elsewhere, as the views say.
        """
        call = self.prepare(branches)
        one_rope, one_attention, _ = self._one.by_sequence
        row_bytes = int(one_attention[ATTENTION["row_bytes"]])
        qkv, cos_sin = int(one_rope[ROPE["qkv"]]), int(one_rope[ROPE["cos_sin"]])
        copies: dict[int, StepArray] = {}
        for number, (view, tokens) in enumerate(branches):
            begin = tokens - view.copied
            if view.copied:
                step = call.by_sequence[SEQUENCE_STEPS * number].copy()
                step[_ROPE_INPUT] = (
                    qkv + begin * row_bytes,
                    cos_sin + 4 * begin * self.shape.head_dim,
                )
                self._store_again(step, view)
                copies[call.rope_at + SEQUENCE_STEPS * (number + 1)] = step
            qkv += tokens * row_bytes
            cos_sin += 4 * tokens * self.shape.head_dim
        steps = np.insert(call.steps, list(copies), list(copies.values()), axis=0)
        return CallSteps(steps, steps, call.rope_at)

    def prepare_paths(self, view: KVView, branches: Branches) -> CallSteps:
        """Return the steps of a call whose sequences are the branches of a trie of tokens.

        They go one after the other, over the same positions of a cache, each as many tokens do.

        Args:
            view: keys and values of the cache.
            branches: over it.
        """
        lengths = branches.lengths
        heads, head_dim = self.shape.heads, self.shape.head_dim
        partial_bytes = 4 * heads * (head_dim + 2)
        workspace = self._engine.workspace
        workspace.reserved("partials", partial_bytes * int(lengths.sum()))
        # making steps can move memory that earlier steps were made with
        while self._version != workspace.version:
            self._version = workspace.version
            self._make()
        one_rope, one_attention, one_merge = self._one.by_sequence
        row_bytes = int(one_attention[ATTENTION["row_bytes"]])
        by_sequence = np.tile(self._one.by_sequence, (len(lengths), 1))
        rope, attention, merge = (by_sequence[number::SEQUENCE_STEPS] for number in range(3))
        rope[:, 0], _, attention[:, 0] = self._kernels(view.kind)
        rope[:, _ROPE_KV] = attention[:, _ATTENTION_KV] = (view.keys, view.values, view.head_bytes)
        rope[:, _ROPE_TABLES] = attention[:, _ATTENTION_TABLES] = view.tables
        before = np.cumsum(lengths) - lengths  # tokens of earlier branches
        queries = one_attention[ATTENTION["queries"]] + before * row_bytes
        rope[:, ROPE["qkv"]] = attention[:, ATTENTION["queries"]] = queries
        rope[:, ROPE["cos_sin"]] = one_rope[ROPE["cos_sin"]] + 4 * before * head_dim
        partials = one_attention[ATTENTION["partials"]] + before * partial_bytes
        attention[:, ATTENTION["partials"]] = merge[:, MERGE["partials"]] = partials
        merge[:, MERGE["out"]] = one_merge[MERGE["out"]] + 4 * before * heads * head_dim
        for steps in (rope, attention, merge):
            steps[:, STEP_TOKENS] = lengths
        write_paths(self._engine, self.shape, by_sequence, view, branches)
        ends = self._one.steps[: self._rope_at], self._one.steps[self._rope_at + SEQUENCE_STEPS :]
        return CallSteps(
            np.concatenate([ends[0], by_sequence, ends[1]]), by_sequence, self._rope_at
        )

    def _store_again(self, rope: StepArray, view: KVView) -> None:
        """Let a rope step store keys and values of a view's last tokens at another position.

        The tokens went through rope before: of a float32 cache, keys are still as they were before
        they were rotated, else as they were stored. The queries have been attended with.
        """
        rope[ROPE["position"]] = view.copy_position
        rope[STEP_TOKENS] = view.copied
        if view.kind != "f32":
            rope[ROPE["rotary_dim"]] = 0
        if view.kind != "f32" or not self.shape.normed_last:
            rope[0] = self._engine.kernel("rope", "plain", view.kind)

    def _kernels(self, kind: str) -> tuple[int, int, int]:
        """Return the kernels for a kind of cache: rotary positions, attention of few and many."""
        if kind not in self._cache_kernels:
            engine, head_dim = self._engine, self.shape.head_dim
            norm: list[str] = ["plain", kind]
            if self._weights.query_norm is not None and not self.shape.whole_norm:
                norm = [self._weights.query_norm.kind, kind]
                if self.shape.normed_last:
                    norm.append("normed_last")
            few, many = attention_kernels(engine, kind, head_dim)
            self._cache_kernels[kind] = (engine.kernel("rope", *norm), few, many)
        return self._cache_kernels[kind]

    def _call_steps(self, sequences: int, *, apart: bool) -> CallSteps:
        """Return the steps of a call of this many sequences, to be patched for each of them."""
        if sequences == 1:
            return self._one
        key = (sequences, apart)
        if key not in self._several:
            self._several[key] = self._repeated(sequences, apart=apart)
        return self._several[key]

    def _repeated(self, sequences: int, *, apart: bool) -> CallSteps:
        """Return the layer's steps with those of a sequence as many times as there are."""
        before = self._one.steps[: self._rope_at]
        after = self._one.steps[self._rope_at + SEQUENCE_STEPS :]
        by_sequence = np.tile(self._one.by_sequence, (sequences, 1))
        if not apart:
            steps = np.concatenate([before, by_sequence, after])
            end = self._rope_at + len(by_sequence)
            return CallSteps(steps, steps[self._rope_at : end], self._rope_at)
        # one step that hands each thread whole sequences
        states = self._engine.workspace.reserved("groups", GROUP_BYTES * sequences)
        step = make_step(
            self._engine.kernel("apart"),
            APART,
            steps=by_sequence.ctypes.data,
            groups=sequences,
            group_steps=SEQUENCE_STEPS,
            states=states,
        )
        steps = np.concatenate([before, step_array([step]), after])
        return CallSteps(steps, by_sequence, self._rope_at, apart=True)

    def _make(self) -> None:
        """Make the steps of a call of one sequence again, with the workspace's addresses."""
        steps = step_array(self._steps())
        end = self._rope_at + SEQUENCE_STEPS
        self._one = CallSteps(steps, steps[self._rope_at : end], self._rope_at)
        self._several.clear()

    def _steps(self) -> list[Step]:
        engine, shape, weights, tokens = self._engine, self.shape, self._weights, self.tokens
        heads, kv_heads, head_dim = shape.heads, shape.kv_heads, shape.head_dim
        reserve_attention_scratch(engine, head_dim, tokens=tokens)

        def buffer(name: str, width: int) -> int:
            """Return the address of (L, width) float32."""
            return engine.workspace.reserved(name, 4 * tokens * width)

        qkv_width = (heads + 2 * kv_heads) * head_dim
        hidden = buffer("hidden", shape.hidden)
        normed = buffer("normed", shape.hidden)
        qkv = buffer("qkv", qkv_width)
        partials = buffer("partials", heads * (head_dim + 2))
        attended = buffer("attended", heads * head_dim)
        gate_up = buffer("gate and up", 2 * shape.inner)
        gated = buffer("gated", shape.inner)
        cos_sin = buffer(shape.angles, head_dim)
        eps = float32_bits(shape.eps)

        def norm(
            weight: Vector, x: int, out: int, *result: str, width: int = shape.hidden, row: int = 0
        ) -> Step:
            """Return the step of a norm of ``width`` features, of rows of ``row`` numbers."""
            return make_step(
                engine.kernel("norm", weight.kind, *result),
                NORM,
                x=x,
                weight=weight.address,
                out=out,
                hidden=width,
                row_bytes=4 * (row or width),
                eps=eps,
            )

        def product(
            matrices: Sequence[Matrix], x: int, out: int, *, add: bool = False
        ) -> list[Step]:
            return product_steps(engine, matrices, x, out, tokens=tokens, add=add)

        # The kernels of these two depend on the cache: _kernels puts them into slot 0.
        rope = {"qkv": qkv, "cos_sin": cos_sin, "heads": heads, "kv_heads": kv_heads}
        rope |= {"head_dim": head_dim, "rotary_dim": shape.rotary_dim, "eps": eps}
        whole_norms = []
        if weights.query_norm is not None and weights.key_norm is not None:
            rope["query_norm"] = weights.query_norm.address
            rope["key_norm"] = weights.key_norm.address
            if shape.whole_norm:
                of_queries, of_keys = heads * head_dim, kv_heads * head_dim
                keys = qkv + 4 * of_queries
                whole_norms = [
                    norm(weights.query_norm, qkv, qkv, width=of_queries, row=qkv_width),
                    norm(weights.key_norm, keys, keys, width=of_keys, row=qkv_width),
                ]
        attention = make_step(
            0,
            ATTENTION,
            queries=qkv,
            row_bytes=4 * qkv_width,
            partials=partials,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=float32_bits(shape.attention_scale),
        )
        merge = make_step(
            engine.kernel("merge"),
            MERGE,
            partials=partials,
            out=attended,
            heads=heads,
            head_dim=head_dim,
        )
        swiglu = make_step(
            engine.kernel("swiglu"), SWIGLU, gate_up=gate_up, out=gated, inner=shape.inner
        )

        def read(matrices: Sequence[Matrix], out: int, before: Vector | None) -> list[Step]:
            """Return the steps of a product of the hidden states, normed where there is a norm."""
            if before is None:
                return product(matrices, hidden, out)
            return [norm(before, hidden, normed), *product(matrices, normed, out)]

        def added(matrices: Sequence[Matrix], x: int, after: Vector | None) -> list[Step]:
            """Return the steps that add a product, normed or not, to the hidden states."""
            if after is None:
                return product(matrices, x, hidden, add=True)
            return [*product(matrices, x, normed), norm(after, normed, hidden, "added")]

        begin = [*read(weights.qkv, qkv, weights.before_attention), *whole_norms]
        self._rope_at = len(begin)
        attending = [*begin, make_step(0, ROPE, **rope), attention, merge]
        if self._attends_only:
            return attending
        return [
            *attending,
            *added(weights.output, attended, weights.after_attention),
            *read(weights.gate_up, gate_up, weights.before_mlp),
            swiglu,
            *added(weights.down, gated, weights.after_mlp),
        ]
