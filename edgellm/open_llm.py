"""``edgellm.load``: from the name of a model and settings to a model that runs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

from edgellm.device.streams import borrowed_stream
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for, warn_of_large_budget
from edgellm.models.through_mlx_lm.checkpoint import (
    AnyCheckpoint,
    MLXLMCheckpoint,
    read_any_checkpoint,
)
from edgellm.prompt_cache.disk_cache import prompt_cache_for
from edgellm.reading.disk_reader import DiskReader, Reader
from edgellm.runtime.load_whole import load_whole
from edgellm.runtime.loader import LoadProgress, SendProgress, load_model, open_reader
from edgellm.setting_values import callback, path_text
from edgellm.settings import LoadFields, LoadSettings, merged
from edgellm.settings.argument_names import check_names
from edgellm.speculation.factory import make_speculation
from edgellm.tokenizer import Tokenizer


@check_names
def load(
    model: str | Path,
    settings: LoadSettings | None = None,
    *,
    progress: LoadProgress | None = None,
    **keywords: Unpack[LoadFields],
) -> LLM:
    """Load a model.

    Args:
        model: a folder, a Hub id (downloaded once; of a GGUF file ``owner/name:Q4_K_M``, which is
            also converted once) or a bundled name (``stories``).
        settings: how it is loaded; instead of it, or on top of it, its fields as keywords
            (``memory="4GB"``).
        progress: called with bytes read and bytes in all.
        keywords: fields of ``LoadSettings``.

    Raises:
        ModelNotFoundError, DownloadError: nothing has this name, or it cannot be had.
        FormatError, UnsupportedModelError, TokenizerError, ReadError: the folder cannot be used.
        MemoryBudgetError: the model cannot run inside the budget.
        ConfigError: a setting does not exist, or is out of range.
    """
    settings = merged("settings", settings, LoadSettings(), keywords)
    callback("progress", progress)
    path_text("model", model, "a folder, a Hub id or a bundled name")
    checkpoint = read_any_checkpoint(locate(model))
    tokenizer = Tokenizer.from_folder(
        checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
    )
    return open_llm(checkpoint, tokenizer, settings, progress=progress)


def open_llm(
    checkpoint: AnyCheckpoint,
    tokenizer: Tokenizer,
    settings: LoadSettings,
    *,
    reader: Reader | None = None,
    plan: Plan | None = None,
    progress: LoadProgress | None = None,
    sending: SendProgress | None = None,
) -> LLM:
    """Load a model whose checkpoint and tokenizer have been read; errors are those of ``load``.

    Args:
        checkpoint: the model folder.
        tokenizer: the model's tokenizer.
        settings: how it is loaded.
        reader: reads the weights; None: a reader that suits checkpoint and plan.
        plan: lays the model out in memory; None: the plan that follows from the settings.
        progress: called with bytes read and bytes in all.
        sending: called with what is sent to other machines that have not got the model.
    """
    warn_of_large_budget(settings)
    if settings.machines is not None:
        return _open_cluster(checkpoint, tokenizer, settings, progress, sending)
    plan = plan or plan_for(checkpoint, settings)
    if isinstance(checkpoint, MLXLMCheckpoint):
        return _open_whole(checkpoint, tokenizer, plan, progress)
    with ExitStack() as on_failure:
        reader = reader or open_reader(checkpoint, plan)
        on_failure.callback(reader.close)
        adapter = None
        if settings.adapter is not None:
            # most models have none, and what reads one takes time to import
            from edgellm.adapters.unmerged import open_unmerged

            adapter = open_unmerged(settings.adapter, checkpoint)
        with borrowed_stream():
            model = load_model(
                checkpoint, plan, reader, settings, adapter=adapter, progress=progress
            )
            on_failure.callback(model.close)
            speculation = make_speculation(model, tokenizer, settings, plan)
        if speculation is not None:
            on_failure.callback(speculation.close)
        prompt_cache = prompt_cache_for(checkpoint, settings, kv_bits=plan.kv_bits, adapter=adapter)
        if plan.resident:
            reader.close()  # all is read: its threads and files are free
        llm = LLM(
            checkpoint,
            tokenizer,
            model,
            plan,
            reader,
            speculation=speculation,
            prompt_cache=prompt_cache,
        )
        on_failure.pop_all()
    return llm


def _open_cluster(
    checkpoint: AnyCheckpoint,
    tokenizer: Tokenizer,
    settings: LoadSettings,
    progress: LoadProgress | None,
    sending: SendProgress | None,
) -> LLM:
    """Load a model on several machines."""
    # most models are on one, and what joins machines takes time to import
    from edgellm.distributed.cluster import open_cluster

    with ExitStack() as on_failure:
        opened = open_cluster(checkpoint, settings, progress=progress, sending=sending)
        on_failure.callback(opened.reader.close)
        on_failure.callback(opened.model.close)
        with borrowed_stream():
            speculation = make_speculation(opened.model, tokenizer, settings, opened.plan)
        llm = LLM(
            checkpoint,
            tokenizer,
            opened.model,
            opened.plan,
            opened.reader,
            speculation=speculation,
            caches=opened.caches,
            prompt_cache=opened.prompt_cache,
            machines=opened.shares,
        )
        on_failure.pop_all()
    return llm


def _open_whole(
    checkpoint: MLXLMCheckpoint, tokenizer: Tokenizer, plan: Plan, progress: LoadProgress | None
) -> LLM:
    """Load a model that mlx-lm runs. Nothing is read for it after this."""
    with borrowed_stream():
        model, caches = load_whole(checkpoint, plan, progress=progress)
    return LLM(checkpoint, tokenizer, model, plan, DiskReader(), caches=caches)
