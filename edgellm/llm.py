"""A loaded model: generate with it, one completion or many, and close it, from any thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from weakref import WeakSet, finalize

from edgellm.chat import Chat, Overflow, Tool, ToolChoice
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.model_config import CommonConfig
from edgellm.device.model_lock import ModelLock
from edgellm.device.place import deadline_after
from edgellm.device.streams import acquire_stream, release_stream
from edgellm.engine.batch_answers import answers, paired
from edgellm.engine.engine import Engine
from edgellm.engine.scheduling.context import EngineContext
from edgellm.files.try_lock import mark_in_use
from edgellm.generation.completer import Answer, Completer
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.generation.prompt import Prompt, token_ids
from edgellm.generation.stats import PrefillCallback
from edgellm.generation.stream import Stream
from edgellm.kv_cache.cache import Cache
from edgellm.memory_plan.plan import Plan
from edgellm.models.model import Model
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.prompt_cache.disk_cache import PromptCache
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.caches import CacheMaker, LayerCaches
from edgellm.sampling.processors import require_known_tokens
from edgellm.scoring.scoring_model import ScoringModel
from edgellm.setting_values import callback, truth, whole_number
from edgellm.settings import MAX_QUEUE, MAX_SEQUENCES, Sampling, SamplingFields, merged
from edgellm.settings.argument_names import check_names
from edgellm.speculation.controller import Speculation
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:  # most models are on one machine
    from edgellm.distributed.opened import MachineShare


@check_names
class LLM(ScoringModel):
    """A loaded model. One generation runs at a time; others wait for it. ``with`` closes it.

    Attributes:
        checkpoint: the model folder.
        config: the model's config.
        tokenizer: the model's tokenizer.
        plan: how the model is laid out in memory.
        model: the decoder itself, for tools that measure it; gone once the model is closed.
        caches: makes the KV caches of a sequence, for the same tools.
        prefix_cache: the kept KV caches of earlier sequences; says how many, and their bytes.
        path: the model folder's path.
        eos_token_ids: tokens that end a completion.
        machines: each of several machines with its part, this one first; empty on one machine.
    """

    def __init__(
        self,
        checkpoint: AnyCheckpoint,
        tokenizer: Tokenizer,
        model: Model,
        plan: Plan,
        reader: Reader,
        *,
        speculation: Speculation | None = None,
        prompt_cache: PromptCache | None = None,
        caches: CacheMaker | None = None,
        machines: Sequence[MachineShare] = (),
    ) -> None:
        self.checkpoint = checkpoint
        self.config: CommonConfig = checkpoint.config
        self.tokenizer = tokenizer
        self.plan = plan
        self.path: Path = checkpoint.folder.path
        self.eos_token_ids: frozenset[int] = tokenizer.end_ids(checkpoint.eos_token_ids)
        self.model = model
        if caches is None:
            assert isinstance(checkpoint, Checkpoint), "who loads another kind brings its caches"
            caches = LayerCaches(checkpoint, plan)
        self.caches = caches
        self.machines: tuple[MachineShare, ...] = tuple(machines)
        self._reader = reader
        self._speculation = speculation
        finalize(self, reader.close)  # its threads would outlive a model that nobody closed
        stream = acquire_stream()
        self._release_stream = finalize(self, release_stream, stream)
        self._end_use = finalize(self, mark_in_use(self.path))
        self._lock = ModelLock(stream, self._free)
        self.prefix_cache: PrefixCache = PrefixCache(
            self._make_caches, self._cache_bytes, plan.kv_budget, prompt_cache
        )
        self._engines: WeakSet[Engine] = WeakSet()
        self._completer = Completer(
            model=model,
            tokenizer=tokenizer,
            plan=plan,
            reader=reader,
            prefix_cache=self.prefix_cache,
            speculation=speculation,
            context=self.context,
        )

    def __repr__(self) -> str:
        state = ""
        if self._lock.closed:
            state = ", closed"
        return f"<LLM {self.path.name}: {self.plan!r}{state}>"

    def __enter__(self) -> LLM:
        """Return the model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def context(self) -> int:
        """Maximum number of tokens of prompt and completion together."""
        if self.plan.context_window:
            return self.config.max_position_embeddings
        return self.plan.context

    @property
    def bytes_read(self) -> int:
        """Bytes of weights read from disk since the model was loaded, asked from any thread."""
        return self._reader.bytes_read

    def stream(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        reuse_cache: bool = False,
        on_prefill: PrefillCallback | None = None,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Stream:
        """Return the tokens that continue a prompt, to be read as they come.

        Args:
            prompt: a text (``Tokenizer.encode_prompt``) or token ids.
            sampling: how tokens are drawn; instead of it, or on top of it, its fields as keywords.
            reuse_cache: compute only what differs from earlier generations (prefix cache); a chat
                does so.
            on_prefill: called before and while the prompt is computed.
            timeout: seconds from now to the last token, waiting included; the answer then ends with
                the ``finish_reason`` ``timeout``.
            settings: fields of ``Sampling``.

        Raises:
            ConfigError: a setting does not exist, or is out of range.
            ContextError: the prompt does not fit the context.
            ClosedError: the model was closed.
            NotFiniteError: the model's logits are not finite; its weights may be damaged.
            ReadError: while streaming weights.
        """
        sampling = merged("sampling", sampling, Sampling(), settings)
        truth("reuse_cache", reuse_cache)
        callback("on_prefill", on_prefill)
        deadline = deadline_after(timeout)
        ids = token_ids(prompt, self.tokenizer)
        self._check(ids)
        require_known_tokens(sampling, self.config.vocab_size)
        answer = Answer(
            self._completer,
            ids,
            sampling,
            end_tokens=self.eos_token_ids,
            continues=isinstance(prompt, str),
            reuse_cache=reuse_cache,
            on_prefill=on_prefill,
        )
        return Stream(answer, self._lock.place(answer, deadline=deadline))

    def generate(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        reuse_cache: bool = False,
        on_prefill: PrefillCallback | None = None,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Completion:
        """Return the whole completion of a prompt; arguments and errors as ``stream`` has them."""
        stream = self.stream(
            prompt,
            sampling,
            reuse_cache=reuse_cache,
            on_prefill=on_prefill,
            timeout=timeout,
            **settings,
        )
        return completion_of(list(stream))

    def stream_batch(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        at_once: int | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Generator[tuple[int, Token]]:
        """Yield tokens that continue several prompts, each with its prompt's place, as they come.

        All that fit into memory share each pass over the weights; the others join when one ends. A
        prompt that cannot run gets one token with the ``finish_reason`` ``error`` and the error,
        and the others go on.

        Args:
            prompts: texts or token ids. An iterator is asked for a prompt when it may run, or
                would be the next to; with a list of samplings, for all at once.
            sampling: how tokens are drawn, one for all or one per prompt; ``settings`` are as in
                ``stream``.
            at_once: maximum number of sequences computed side by side; None for as many as fit
                into memory.

        Raises:
            ConfigError: a setting is out of range, or beams are asked for.
            ClosedError, ReadError: as ``stream`` does.
        """
        asked = paired(prompts, sampling, settings)
        return answers(self.engine(at_once=at_once), self._engine_context(), asked)

    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        at_once: int | None = None,
        **settings: Unpack[SamplingFields],
    ) -> list[Completion]:
        """Return the completions of several prompts, in order; the rest as in ``stream_batch``."""
        tokens: dict[int, list[Token]] = defaultdict(list)
        for place, token in self.stream_batch(prompts, sampling, at_once=at_once, **settings):
            tokens[place].append(token)
        return [completion_of(tokens[place]) for place in sorted(tokens)]

    def engine(self, *, max_queue: int | None = None, at_once: int | None = None) -> Engine:
        """Return an engine for continuous batching, which takes sequences at any time.

        While it has sequences, other answers of this model wait. Its sequences take the memory of
        the KV cache.

        Args:
            max_queue: sequences that may wait for others to end; beyond that, ``submit`` raises
                QueueFullError. None for any number.
            at_once: maximum number of sequences that run side by side; None for as many as fit
                into memory. The others wait.

        Raises:
            ConfigError: an argument is out of range.
            ClosedError: the model was closed.
        """
        if at_once is not None:
            at_once = whole_number("at_once", at_once, 1, MAX_SEQUENCES)
        if max_queue is not None:
            max_queue = whole_number("max_queue", max_queue, 0, MAX_QUEUE)
        self._lock.require_open()
        engine = Engine(self._engine_context(), max_sequences=at_once, max_queue=max_queue)
        self._engines.add(engine)
        return engine

    def batch(self, *, at_once: int | None = None) -> Engine:
        """Return an ``engine`` in which any number of sequences may wait."""
        return self.engine(at_once=at_once)

    def chat(
        self,
        system: str | None = None,
        sampling: Sampling | None = None,
        *,
        think: bool | None = None,
        overflow: Overflow = "error",
        tools: Iterable[Tool] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Chat:
        """Return a conversation; arguments and errors are those of ``Chat``."""
        return Chat(
            self,
            system=system,
            think=think,
            overflow=overflow,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            chat_template_kwargs=chat_template_kwargs,
            sampling=sampling,
            **settings,
        )

    def cancel(self) -> None:
        """End all answers that exist now, with the ``finish_reason`` ``cancelled``.

        That means all that run, wait or have not begun, the sequences of engines included;
        ``Stream.cancel`` ends one alone. It may be called from any thread.
        """
        self._lock.cancel()
        for engine in list(self._engines):
            engine.cancel_all()

    def close(self) -> None:
        """End what is running, and free weights, caches, threads and files.

        May be called twice, from any thread. It waits for the token that is being computed, but not
        for readers: a stream that is asked for more then raises ClosedError.
        """
        self._lock.close()
        for engine in list(self._engines):
            engine.model_closed()

    def _free(self) -> None:
        self.prefix_cache.close()  # other machines write their parts before they are let go
        self.model.close()
        self._reader.close()
        if self._speculation is not None:
            self._speculation.close()
        del self.model, self.caches, self._completer
        self._release_stream()
        self._end_use()

    def _engine_context(self) -> EngineContext:
        return EngineContext(
            model=self.model,
            caches=self.caches,
            tokenizer=self.tokenizer,
            plan=self.plan,
            reader=self._reader,
            model_lock=self._lock,
            prefix_cache=self.prefix_cache,
            end_tokens=self.eos_token_ids,
            context=self.context,
            speculation=self._speculation,
        )

    def _make_caches(self, tokens: int) -> list[Cache]:
        return self.caches.make(capacity=self.context, reserve=tokens)

    def _cache_bytes(self, tokens: int) -> int:
        return self.caches.nbytes(capacity=tokens, context=self.context)
