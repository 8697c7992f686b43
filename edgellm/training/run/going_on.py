"""Where a run goes on, and what it must have in common with the one that was stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.checkpoint.folder import ADAPTER_CONFIG, CONFIG
from edgellm.device import machine
from edgellm.errors import ConfigError
from edgellm.training.data.rendering import Rendered
from edgellm.training.learners.learner import TrainingItem
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.saved_state import FILE, SavedState, read_state


def state_of(
    request: TrainRequest, facts: Mapping[str, Any], parts: int, items: Sequence[TrainingItem]
) -> SavedState | None:
    """Return where a run goes on, None where one begins; its folder must be free then.

    Args:
        request: of the run.
        facts: of the run.
        parts: of the numbers: layers, for example.
        items: that are learned.
    """
    if request.resume:
        state = read_state(request.folder, facts, parts)
        steps = request.settings.steps_of(len(items))
        if state.step > steps:
            raise ConfigError(
                f"the run in {request.folder} has taken {state.step} steps, and was asked for "
                f"{steps}",
                hint="give more --epochs or --steps, or begin anew in another folder",
            )
        return state
    if (request.folder / FILE).exists():
        raise ConfigError(
            f"{request.folder} holds a training run already",
            hint="go on with it: --resume; or name another folder",
        )
    for name, held in ((ADAPTER_CONFIG, "an adapter"), (CONFIG, "a model")):
        if (request.folder / name).exists():
            raise ConfigError(f"{request.folder} holds {held} already", hint="name another folder")
    return None


def facts_of(
    request: TrainRequest, model: str, data: Rendered, *, day: str | None, start: str | None
) -> Mapping[str, Any]:
    """Return what a run must have in common with one that goes on from it.

    Args:
        request: of the run.
        model: digest of the model.
        data: what is learned.
        day: that templates write.
        start: digest of the adapter that it begins with; None: it begins anew.
    """
    digest = hashlib.sha256()
    for sequence in data.sequences:
        digest.update(repr((tuple(sequence.tokens), tuple(sequence.targets))).encode())
    settings = request.settings.by_option()
    # how a step is cut and how often it is saved change no number
    for name in ("micro_tokens", "save_every"):
        del settings[name]
    return {
        "model": model,
        "data": digest.hexdigest(),
        "activations": request.load.activations,
        "chip": machine.chip_name(),
        "day": day,
        "start": start,
        **settings,
    }
