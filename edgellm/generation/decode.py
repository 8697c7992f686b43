"""The decode loop: the next token, again and again. Everything that generates stands on it.

A *pass* sends the last token, and draft tokens after it, through all layers. It is launched, which
on a GPU returns at once, and read later, which waits for its result.

Where passes are asynchronous and no draft tokens are expected, the loop runs two passes deep: it
launches the pass after the current one before it reads the current one. Its input is a token that
only the device knows yet. So the device computes while Python turns the token before into text::

    launch 1 | launch 2 | read 1, yield | launch 3 | read 2, yield | launch 4 | read 3, yield ...

With draft tokens that cannot be: which rows of a pass count is known only when it was read, and the
next pass starts from there. It then gives several tokens at once::

    launch 1 | read 1, yield 1 | draft 4, launch 2 | read 2, yield up to 5 | draft, launch 3 ...

Where arithmetic is not asynchronous (a CPU, or layers that stream), the second order is used
always, mostly with no draft token.
"""

# R rows of a pass: the last token and the draft tokens after it; V vocabulary

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.device import machine as device
from edgellm.errors import NotFiniteError
from edgellm.generation.not_finite import located
from edgellm.generation.prefill import prefill
from edgellm.generation.stats import Progress
from edgellm.kv_cache.cache import Cache, tree_caches
from edgellm.kv_cache.token_tree import moves, room
from edgellm.models.layers import Span, always
from edgellm.models.model import Model
from edgellm.sampling.logprobs import Logprobs, TokenLogprob
from edgellm.sampling.sampler import Draw, Sampler
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.speculation.draft_tree import DraftTree, likeliest_chain
from edgellm.speculation.proposal import DraftToken, NoDrafts


@dataclass(frozen=True, slots=True)
class Step:
    """One new token.

    Attributes:
        token: the token.
        logprob: its log-probability, where that was asked for.
        beams: of a beam search, on the last token: all continuations that it kept, with the score
            of each.
        ends_pass: whether the next token comes out of another pass.
        ends_text: whether its grammar lets nothing follow.
    """

    token: int
    logprob: TokenLogprob | None
    beams: Sequence[tuple[tuple[int, ...], float]] = ()
    ends_pass: bool = True
    ends_text: bool = False


def generate_steps(
    model: Model,
    prompt: Sequence[int],
    caches: Sequence[Cache],
    sampling: Sampling,
    *,
    prefill_chunk: int,
    limit: int,
    progress: Progress,
    keep_going: Callable[[], bool] = always,
    seen: Sequence[int] | None = None,
    speculation: Speculation | None = None,
    sampler: Sampler | None = None,
    generated: int = 0,
    on_states: Callable[[mx.array], None] | None = None,
) -> Generator[Step]:
    """Yield up to ``limit`` new tokens after ``prompt``.

    P prompt tokens and N new ones cost ceil(P / prefill_chunk) + N - 1 forwards at most: the
    first token comes out of the prefill, no pass is launched past the last token, and draft tokens
    that turn out to be right save forwards. Where arithmetic is asynchronous (a GPU), a text that
    ends at an end token costs one forward more.

    Args:
        model: the model.
        prompt: tokens that are not yet in the caches; at least the last one.
        caches: one per layer. Afterwards they hold nothing beyond the tokens that were yielded.
        sampling: how tokens are drawn.
        prefill_chunk: prompt tokens that go through a layer at once.
        limit: maximum number of new tokens; the caches have room for all of them but the last.
        progress: is brought up to date as the loop goes.
        keep_going: asked before each forward; false ends the loop.
        seen: all tokens so far, where the caches hold some already; the repetition penalty looks at
            them.
        speculation: chooses draft tokens; None for plain decoding.
        sampler: draws the tokens, where it has drawn some of this sequence before.
        generated, on_states: as ``prefill`` has them. Generated tokens cost decode passes.
    """
    seen = seen or prompt
    if sampler is None:
        sampler = Sampler(sampling, seen, model.config.vocab_size, lazy=device.has_gpu())
    opening = progress
    if generated:
        opening = Progress(len(prompt))  # what is known of the prompt stays
    logits = prefill(
        model,
        prompt,
        caches,
        prefill_chunk=prefill_chunk,
        progress=opening,
        generated=generated,
        keep_going=keep_going,
        on_states=on_states,
    )
    if logits is None:
        return
    if generated:
        progress.forwards += opening.forwards
        progress.decode_passes += opening.forwards
    if speculation is None:
        speculation = Speculation(NoDrafts(), extra_row_cost=0.0)
    loop = DecodeLoop(model, caches, sampler, speculation, progress, keep_going)
    current: _Pass | None = loop.prefill_pass(logits)
    speculation.begin(seen, sampling)  # while the device draws the first token
    remaining = limit
    kept = caches[0].offset
    try:
        while current is not None:
            ahead = loop.launch_ahead(current, remaining)
            steps = loop.read(current)
            for place, step in enumerate(steps, 1):
                # all tokens of a pass but its last are accepted draft tokens
                progress.accepted_tokens += place < len(steps)
                kept += 1
                remaining -= 1
                yield step
                if remaining == 0 or not keep_going():
                    return
            current = loop.launch_next(current, ahead, remaining)
    finally:
        # a pass that was launched ahead, or read only in part, has stored tokens that nobody took
        for cache in caches:
            cache.trim(kept)


@dataclass(slots=True)
class _Pass:
    """A pass that was launched.

    Attributes:
        rows: tokens that went through the layers; 0 for the prefill, which gives the first token.
        draft: the draft tokens among them; None without any.
        inputs: all of them (R,); None for the prefill.
        offset: tokens that were in the caches before it.
        logits: after each row (R, V); (1, V) for the prefill.
        token: the last token that the pass gives (1,). With draft tokens it is None until the pass
            was read.
        draw: that token as it was drawn; None with draft tokens.
        logprobs: that of the token, where it was asked for and there is no draft token.
        started_at: when the pass was launched.
    """

    rows: int
    draft: DraftTree | None
    inputs: mx.array | None
    offset: int
    logits: mx.array
    token: mx.array | None = None
    draw: Draw | None = None
    logprobs: Logprobs | None = None
    started_at: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class DecodeLoop:
    """Launches passes, each after the one before, and reads their tokens.

    Attributes:
        model: the model.
        caches: of the sequence, one per layer.
        sampler: draws its tokens.
        speculation: chooses draft tokens; it was told where the sequence begins.
        progress: is brought up to date.
        keep_going: asked in each pass.
    """

    model: Model
    caches: Sequence[Cache]
    sampler: Sampler
    speculation: Speculation
    progress: Progress
    keep_going: Callable[[], bool]

    def prefill_pass(self, logits: mx.array) -> _Pass:
        """Return the pass that the prefill's logits (1, V) stand for."""
        launched = _Pass(0, None, None, self.caches[0].offset, logits)
        self._draw(launched)
        return launched

    def launch_ahead(self, current: _Pass, remaining: int) -> _Pass | None:
        """Launch the pass after one that is still to be read; None where that is not worth it."""
        if remaining <= 1 or not self.model.layers.async_compute or self.sampler.reads_tokens:
            return None
        if not self.keep_going() or self.speculation.expects_draft():
            return None
        return self._launch(_known(current), ())

    def launch_next(self, current: _Pass, ahead: _Pass | None, remaining: int) -> _Pass | None:
        """Return the pass after one that was read.

        That is the one that was launched ahead, or a new one with draft tokens. None where
        ``keep_going`` said no in the middle of it.
        """
        if ahead is not None:
            self.speculation.skip_draft()
            return ahead
        return self._launch(_known(current), self.speculation.propose(remaining - 1))

    def next_steps(self, token: int, *, remaining: int) -> list[Step]:
        """Return the tokens of one pass after ``token``, the last one so far.

        Empty where ``keep_going`` said no; the caches are then as before.

        Args:
            token: it has not gone through the model.
            remaining: maximum number of tokens that are returned.
        """
        launched = self._launch(mx.array([token]), self.speculation.propose(remaining - 1))
        if launched is None:
            return []
        return self.read(launched)

    def read(self, current: _Pass) -> list[Step]:
        """Wait for the tokens of a pass: the accepted draft tokens, and one more.

        Raises:
            NotFiniteError: there is nothing to draw from.
        """
        # a pass that was launched ahead begins to compute when the one before it is done
        started_at = max(current.started_at, self.progress.last_token_at or 0.0)
        try:
            if current.draft is not None:
                steps = self._read_verified(current)
            else:
                steps = [self._read_drawn(current)]
        except NotFiniteError as error:
            raise located(error, self.caches) from None
        seconds = self.progress.record_token() - started_at
        if current.rows:
            # the prefill's pass says nothing of what a step costs
            self.speculation.record_step(current.rows, seconds)
        if current.inputs is not None:
            self.speculation.learn(current.inputs, current.logits)
        for step in steps:
            self.speculation.add(step.token)
        return steps

    def _launch(self, tokens: mx.array, draft: Sequence[DraftToken]) -> _Pass | None:
        """Send the last token (1,) and draft tokens through the model.

        Return None where ``keep_going`` said no between two layers; the caches are then as before.
        """
        tree, levels = self._rows(draft)
        if tree is not None:
            drafted = [draft_token.token for draft_token in tree.drafted]
            tokens = mx.concatenate([tokens, mx.array(drafted, dtype=tokens.dtype)])  # (R,)
        offset = self.caches[0].offset
        started_at = time.perf_counter()
        span = Span(self.caches, len(tokens), levels=levels)
        logits = self.model.step(tokens, [span], keep_going=self.keep_going)  # (R, V)
        if logits is None:
            self._trim(offset)
            return None
        self.progress.forwards += 1
        self.progress.decode_passes += 1
        self.progress.drafted_tokens += len(tokens) - 1
        launched = _Pass(len(tokens), tree, tokens, offset, logits, started_at=started_at)
        if tree is None:
            self._draw(launched)
        return launched

    def _rows(self, draft: Sequence[DraftToken]) -> tuple[DraftTree | None, Sequence[int]]:
        """Return draft tokens as rows, and their levels where they do not follow one another.

        Of a tree that the caches have no room for, the likeliest chain.
        """
        if not draft:
            return None, ()
        tree = DraftTree(draft)
        if tree.is_chain:
            return tree, ()
        if room(tree.levels) > min(cache.room for cache in tree_caches(self.caches)):
            return DraftTree(likeliest_chain(draft)), ()
        return tree, tree.levels

    def _draw(self, launched: _Pass) -> None:
        """Draw the token of a pass without draft tokens, unevaluated, and let it be computed."""
        sampler = self.sampler
        launched.draw = sampler(launched.logits)
        launched.token = launched.draw.tokens
        pending = [launched.token, launched.draw.largest_logits, *sampler.pending]
        if sampler.sampling.logprobs:
            launched.logprobs = sampler.logprobs(launched.logits, launched.token)
            pending += launched.logprobs.pending
        mx.async_eval(pending)  # None is passed over

    def _read_drawn(self, current: _Pass) -> Step:
        """Read the token of a pass without draft tokens."""
        assert current.draw is not None, "it was drawn when the pass was launched"
        token = current.draw.read()
        logprob = None
        if current.logprobs is not None:
            logprob = current.logprobs.read()[0]
        return Step(token, logprob, ends_text=self.sampler.has_ended)

    def _read_verified(self, current: _Pass) -> list[Step]:
        """Read the tokens of a pass with draft tokens; refused ones leave the caches."""
        tree = current.draft
        assert tree is not None, "it has draft tokens"
        token_after = self._tokens_of(current, tree)
        tokens: list[int] = []
        path: list[int] = []
        row: int | None = 0
        while row is not None:
            path.append(row)
            tokens.append(token_after(row))
            row = tree.child(row, tokens[-1])
            if self.sampler.has_ended:
                break
        for source, target in moves(tree.levels, path):
            for cache in tree_caches(self.caches):
                cache.move(current.offset + source, current.offset + target)
        self._trim(current.offset + len(tokens))
        current.token = mx.array(tokens[-1:])
        logprobs: Sequence[TokenLogprob | None] = [None] * len(tokens)
        if self.sampler.sampling.logprobs:
            rows = current.logits[mx.array(path)]
            logprobs = self.sampler.logprobs(rows, mx.array(tokens)).read()
        # nothing stays lazy, as in the prefill: another thread may ask for the next token
        mx.eval(self.sampler.pending)
        last = len(tokens) - 1
        return [
            Step(
                token,
                logprob,
                ends_pass=place == last,
                ends_text=place == last and self.sampler.has_ended,
            )
            for place, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True))
        ]

    def _tokens_of(self, current: _Pass, tree: DraftTree) -> Callable[[int], int]:
        """Return what tells the token after a row of a pass, if the draft tokens above are right.

        A sampler notes what it draws, so no more of them may be asked for than are taken.
        """
        if self.sampler.plain_greedy:
            # all rows at once: these tokens depend on nothing but their logits
            return self.sampler.likeliest(current.logits).read

        def draw(row: int) -> int:
            logits = current.logits[row : row + 1]
            children = tree.children(row)
            if len(children) == 1:
                _, draft = children[0]
                return self.sampler.verify(logits, draft.token, draft.proposal)
            # drawn as always: it equals one of several as often as it can
            return self.sampler(logits).read()

        return draw

    def _trim(self, offset: int) -> None:
        for cache in self.caches:
            has_all = cache.trim(offset)
            assert has_all, "no more is drafted than every cache can take back"


def _known(previous: _Pass) -> mx.array:
    """Return the last token (1,) of a pass."""
    assert previous.token is not None, "a pass with draft tokens is read before the next one"
    return previous.token
