"""``edgellm.plan``: how a model would be laid out in memory, before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from edgellm.diagnostics.facts import inspect_model
from edgellm.memory_plan.plan import Plan
from edgellm.runtime.forecast import forecast
from edgellm.setting_values import path_text
from edgellm.settings import LoadFields, LoadSettings, merged
from edgellm.settings.argument_names import check_names


@check_names
def plan(
    model: str | Path, settings: LoadSettings | None = None, **keywords: Unpack[LoadFields]
) -> Plan:
    """Return the plan that ``load`` would follow, without loading or downloading weights.

    The speed is predicted where the model's files are on this machine; a layer and the disk are
    measured for it, which takes about a second. Of a Hub repository that was never downloaded,
    headers and config are fetched: some 100 KB.

    Args:
        model: as in ``load``.
        settings: as in ``load``; instead of it, or on top of it, its fields as keywords
            (``memory="4GB"``).
        keywords: fields of ``LoadSettings``.

    Raises:
        MemoryBudgetError: the model cannot run inside the budget; the hint has the smallest.
        ConfigError: a setting does not exist, or is out of range.
        ModelNotFoundError, DownloadError: nothing has this name, or it cannot be had.
        FormatError, UnsupportedModelError, ReadError: the folder cannot be used.
    """
    settings = merged("settings", settings, LoadSettings(), keywords)
    path_text("model", model, "a folder, a Hub id or a bundled name")
    checkpoint, downloaded = inspect_model(model)
    return forecast(checkpoint, settings, here=downloaded)
