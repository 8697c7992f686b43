"""Budgets in which a model cannot run, refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

from edgellm.bench.speed.workload import Workload
from edgellm.hub.resolve import bundled_names, locate
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint


def require_budgets(workload: Workload) -> None:
    """Refuse a budget in which a model that is here as a folder cannot run.

    What is made or downloaded first is looked at when its turn comes.

    Raises:
        MemoryBudgetError: a budget is too small.
        FormatError, UnsupportedModelError, ReadError: a folder cannot be used.
    """
    for session in workload.sessions():
        settings = session.settings
        # of several machines, those that are there say together what is enough
        if settings.memory is None or settings.machines is not None or session.bits is not None:
            continue
        if Path(session.model).is_dir() or session.model in bundled_names():
            from edgellm.bench.backends.edgellm_mlx import load_settings

            checkpoint = read_any_checkpoint(locate(session.model))
            plan_for(checkpoint, load_settings(checkpoint, settings))
