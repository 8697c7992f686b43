"""How the next token is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from edgellm.errors import ConfigError
from edgellm.setting_values import (
    functions,
    listed,
    number,
    set_checked,
    shown,
    token_number,
    truth,
    whole_number,
)
from edgellm.settings.argument_names import check_names
from edgellm.settings.defaults import MAX_BEAMS, MAX_SEED, MAX_VOCABULARY
from edgellm.structured.grammar import Grammar

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    import numpy.typing as npt

    LogitsProcessor = Callable[[mx.array, mx.array], mx.array | npt.NDArray[np.float32]]
    NumPyLogitsProcessor = Callable[
        [npt.NDArray[np.intc], npt.NDArray[np.float32]], npt.NDArray[np.float32]
    ]
else:  # neither library is imported for the name of a type
    LogitsProcessor = NumPyLogitsProcessor = Callable


@check_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is sampled; temperature 0 takes the most likely one (greedy decoding).

    The steps apply in this order: logit bias, logits processors, repetition penalty, frequency and
    presence penalty, grammar, temperature, top-k, top-p, min-p. Raises ConfigError where a value is
    out of range.

    Attributes:
        max_tokens: maximum number of new tokens; None for as many as the context has room for.
        temperature: logits are divided by it; 0 is greedy, and so is anything below 0.001.
        top_p: keep the most likely tokens whose probabilities reach this sum; 1 keeps all.
        top_k: keep this many of the most likely tokens; 0 keeps all.
        min_p: drop tokens less likely than this fraction of the most likely one; 0 keeps all.
        repetition_penalty: divides (or multiplies, below 0) the logits of tokens seen; 1 leaves
            them.
        presence_penalty: subtracted from the logits of tokens that the answer has already.
        frequency_penalty: subtracted from a token's logit as often as the answer has it. Both look
            at new tokens alone, not at the prompt (OpenAI's definition, as in vLLM).
        beams: sequences that beam search keeps; 1 is plain decoding.
        seed: equal seeds draw equal texts; None draws a new one each time.
        stop: texts that end the completion and are left out of it.
        logprobs: also return the log-probability of each token.
        top_logprobs: also return this many of the most likely tokens in its place, with theirs.
        prompt_logprobs: also return the log-probabilities of the prompt's tokens, and this many
            of the most likely tokens in the place of each; None for neither.
        logit_bias: added to the logits of tokens, by their ids: -100 all but bans a token, 100 all
            but forces it, minus infinity bans it.
        logits_processors: functions as mlx-lm has them: each gets the tokens so far (L,), the
            prompt's included, and the logits (1, V), both as MLX arrays, and returns logits.
        logits_processor: a function or several, as llama-cpp-python has them: each gets the tokens
            so far (L,) and the logits (V,), both as NumPy arrays, and returns logits.
        grammar: the form that the answer has: a JSON schema for example.
    """

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    beams: int = 1
    seed: int | None = None
    stop: str | Iterable[str] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    # a mapping has no hash
    logit_bias: Mapping[int, float] | Mapping[str, float] | None = field(default=None, hash=False)
    logits_processors: Sequence[LogitsProcessor] = ()
    logits_processor: NumPyLogitsProcessor | Sequence[NumPyLogitsProcessor] = ()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        """Check every range."""
        checked = {
            "temperature": number("temperature", self.temperature, 0, 100),
            "top_p": number("top_p", self.top_p, 0, 1, low_excluded=True),
            "top_k": whole_number("top_k", self.top_k, 0, MAX_VOCABULARY),
            "min_p": number("min_p", self.min_p, 0, 1),
            "repetition_penalty": number("repetition_penalty", self.repetition_penalty, 0.01, 100),
            "presence_penalty": number("presence_penalty", self.presence_penalty, -2, 2),
            "frequency_penalty": number("frequency_penalty", self.frequency_penalty, -2, 2),
            "beams": whole_number("beams", self.beams, 1, MAX_BEAMS),
            "stop": _stop_texts(self.stop),
            "logprobs": truth("logprobs", self.logprobs),
            "top_logprobs": whole_number("top_logprobs", self.top_logprobs, 0, MAX_VOCABULARY),
            "logits_processors": _logits_processors(self.logits_processors),
            "logits_processor": functions("logits_processor", self.logits_processor),
        }
        if self.max_tokens is not None:
            checked["max_tokens"] = whole_number("max_tokens", self.max_tokens, 1, 1 << 27)
        if self.logit_bias is not None:
            checked["logit_bias"] = _logit_bias(self.logit_bias)
        if self.prompt_logprobs is not None:
            checked["prompt_logprobs"] = whole_number(
                "prompt_logprobs", self.prompt_logprobs, 0, MAX_VOCABULARY
            )
        if self.seed is not None:
            checked["seed"] = whole_number("seed", self.seed, 0, MAX_SEED)
        set_checked(self, checked)
        if self.top_logprobs:
            set_checked(self, {"logprobs": True})
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError(
                "beam search does not sample", hint="leave out temperature, or set beams to 1"
            )
        if not isinstance(self.grammar, Grammar | None):
            raise ConfigError(
                f"grammar is {shown(self.grammar)}; it must be an edgellm.Grammar",
                hint="make one: edgellm.Grammar.json_schema(schema)",
            )
        if self.beams > 1 and self.grammar is not None:
            raise ConfigError("beam search follows no grammar", hint="set beams to 1")

    def new_tokens(self, prompt_tokens: int, context: int) -> int:
        """Return how many tokens may follow a prompt: one, even where it fills the context."""
        room = max(1, context - prompt_tokens)
        if self.max_tokens is None:
            return room
        return min(self.max_tokens, room)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts, also where ``stop`` was given as one text or as another kind of list."""
        assert isinstance(self.stop, tuple), "it was made one when these settings were made"
        return self.stop

    @property
    def numpy_processors(self) -> Sequence[NumPyLogitsProcessor]:
        """The functions of ``logits_processor``, also where there was only one."""
        assert isinstance(self.logits_processor, tuple), "it was made one, as ``stop`` was"
        return self.logits_processor


class SamplingFields(TypedDict, total=False):
    """The fields of ``Sampling`` as keyword arguments: ``**settings: Unpack[SamplingFields]``."""

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    beams: int
    seed: int | None
    stop: str | Iterable[str]
    logprobs: bool
    top_logprobs: int
    prompt_logprobs: int | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    logits_processors: Sequence[LogitsProcessor]
    logits_processor: NumPyLogitsProcessor | Sequence[NumPyLogitsProcessor]
    grammar: Grammar | None


def _stop_texts(stop: object) -> tuple[str, ...]:
    """Return the stop texts: of one text, or of several. Raises ConfigError."""
    if isinstance(stop, str):
        stop = (stop,)
    if isinstance(stop, Set):
        stop = tuple(stop)
    texts = tuple(listed("stop", stop, "a text, or a list of texts"))
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ConfigError(
                f"stop has {shown(text)}; a stop text must be a text that is not empty",
                hint="leave it out, or give the text that ends the answer",
            )
    return texts


def _logit_bias(bias: object) -> dict[int, float]:
    """Return biases by token id; JSON has ids as texts. Raises ConfigError."""
    if not isinstance(bias, Mapping):
        raise ConfigError(
            f"logit_bias is {shown(bias)}; it must be a mapping of token ids",
            hint="give what is added to the logits of tokens: {42: -100}",
        )
    found = {}
    for token, value in bias.items():
        token_id = token_number("logit_bias", token)
        if isinstance(value, float) and value == -math.inf:
            found[token_id] = value
        else:
            found[token_id] = number("logit_bias", value, -1e6, 1e6)
    return found


def _logits_processors(given: object) -> tuple[Any, ...]:
    """Return the functions of ``logits_processors``. Raises ConfigError."""
    if isinstance(given, list) and callable(given):
        raise ConfigError(
            f"logits_processors is a {type(given).__name__}, whose functions take NumPy arrays",
            hint="give it as logits_processor",
        )
    return functions("logits_processors", given)
