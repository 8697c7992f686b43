"""Answers to many prompts that are all there, or that an iterator makes one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgellm.engine.engine import Engine, require_no_beams
from edgellm.engine.scheduling.context import EngineContext
from edgellm.errors import ClosedError, ConfigError, EdgeLLMError
from edgellm.generation.output import Token
from edgellm.generation.stats import Progress
from edgellm.setting_values import iterated, listed
from edgellm.settings import Sampling, merged

Asked = tuple[Any, Sampling]
"""A prompt, which nobody has looked at yet, and how its tokens are drawn."""


def paired(
    prompts: object, sampling: Sampling | Sequence[Sampling] | None, settings: Mapping[str, Any]
) -> Iterator[Asked]:
    """Return an iterator over prompts with their settings.

    Args:
        prompts: anything that can be iterated over; made a list only where there are as many
            samplings.
        sampling: one for all, or one per prompt.
        settings: fields of ``Sampling`` on top of it.

    Raises:
        ConfigError: the prompts are not a list, or a setting is wrong.
    """
    allowed = "a list of texts or of token ids"
    if isinstance(sampling, Sequence) and not isinstance(sampling, str | bytes):
        prompt_list = listed("prompts", prompts, allowed)
        samplings = [_checked(one, settings) for one in sampling]
        if len(samplings) != len(prompt_list):
            raise ConfigError(
                f"there are {len(samplings)} samplings for {len(prompt_list)} prompts",
                hint="give one, or one per prompt",
            )
        return iter(list(zip(prompt_list, samplings, strict=True)))
    for_all = _checked(sampling, settings)
    return ((prompt, for_all) for prompt in iterated("prompts", prompts, allowed))


def answers(
    engine: Engine, context: EngineContext, asked: Iterable[Asked]
) -> Generator[tuple[int, Token]]:
    """Yield the tokens that continue some prompts, as they come, with the prompts' places.

    A prompt is taken from the iterator when it may run, or would be the next to. One that cannot
    run gets one token with the ``finish_reason`` ``error`` and the error. The engine is closed at
    the end, and takes nothing else meanwhile.
    """
    places: dict[int, int] = {}
    coming = enumerate(asked)
    with engine:
        while True:
            while not engine.waiting:
                following = next(coming, None)
                if following is None:
                    break
                place, (prompt, sampling) = following
                try:
                    places[engine.submit(prompt, sampling)] = place
                except ClosedError:
                    raise
                except EdgeLLMError as error:
                    no_cost = context.start_meter().snapshot(Progress(0))
                    yield place, Token(None, "", None, "error", no_cost, error)
            if engine.idle:
                return
            for number, token in engine.step():
                yield places[number], token
                if token.finish_reason is not None:
                    del places[number]


def _checked(sampling: Sampling | None, settings: Mapping[str, Any]) -> Sampling:
    checked = merged("sampling", sampling, Sampling(), settings)
    require_no_beams(checked)
    return checked
