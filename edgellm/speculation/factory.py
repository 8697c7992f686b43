"""What guesses beside a model, as its settings say: made, compared with the model, and counted."""

from __future__ import annotations

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine as device
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.models.llama import Model
from edgellm.plan.memory_estimate import MemoryEstimate, needs_of
from edgellm.plan.plan import Plan, make_plan
from edgellm.runtime.loader import arithmetic_of, disk_reader, load_model, make_caches
from edgellm.settings import LoadSettings
from edgellm.speculation.controller import MOST, Speculation
from edgellm.speculation.draft_model import DraftModel
from edgellm.speculation.ngram import NGrams
from edgellm.speculation.proposal import Drafter
from edgellm.tokenizer import Tokenizer

ROW_SHARE = {"paged": 0.01, "gpu": 0.03, "kernels": 0.15, "mlx": 1.0}
"""What one more row costs of a pass, before it was measured: where the disk is the limit, on a GPU, with our CPU kernels (which
hold a weight while it meets 16 rows), and with MLX's on a CPU (which read it anew for each)."""


def draft_checkpoint(settings: LoadSettings) -> Checkpoint | None:
    """The draft model, looked through; None where there is none. Raises EdgeLLMError, as ``load``."""
    return None if settings.draft is None else read_checkpoint(locate(settings.draft))


def draft_needs(draft: Checkpoint, settings: LoadSettings) -> MemoryEstimate:
    """What a draft model needs in memory."""
    arithmetic = arithmetic_of(draft, settings)
    return needs_of(
        draft,
        item=arithmetic.dtype.size,
        window=settings.context_window,
        fused_attention=arithmetic.fused_attention,
    )


def speculation_for(
    model: Model, tokenizer: Tokenizer, settings: LoadSettings, plan: Plan
) -> Speculation | None:
    """What guesses for a model; None where nothing does. A draft model is loaded.

    Raises:
        ConfigError: the draft model has another tokenizer.
        EdgeLLMError: it cannot be loaded; as ``load``.
    """
    if settings.speculate == "off":
        return None
    draft = draft_checkpoint(settings)
    drafter: Drafter = (
        NGrams() if draft is None else load_draft(draft, model, tokenizer, settings, plan)
    )
    place = "gpu" if device.has_gpu() else "kernels" if model.layers.max_exact_rows else "mlx"
    share = ROW_SHARE["mlx" if place == "mlx" else place if plan.resident else "paged"]
    return Speculation(drafter, most=most_guesses(model), row_share=share)


def most_guesses(model: Model) -> int:
    """Guesses a pass: with more, the CPU's kernels would take another way, on which a row is not what it is alone."""
    max_exact_rows = model.layers.max_exact_rows
    return min(MOST, max_exact_rows - 1) if max_exact_rows else MOST


def load_draft(
    draft: Checkpoint, model: Model, tokenizer: Tokenizer, settings: LoadSettings, plan: Plan
) -> DraftModel:
    """Load a draft model for a model. Raises EdgeLLMError, as ``speculation_for``."""
    own = Tokenizer.from_folder(draft.folder.path, vocab_size=draft.config.vocab_size)
    difference = tokenizer.difference(own)
    if difference is not None:
        raise ConfigError(
            f"the draft model {settings.draft} has another tokenizer: {difference}",
            hint="a draft must share the model's tokenizer: take a smaller model of the same family",
        )
    needs = draft_needs(draft, settings)
    context = min(plan.context, needs.max_context)
    everything = needs.weights + needs.prompt(context) + needs.chunk(plan.prefill_chunk, context)
    layout = make_plan(
        needs, budget=everything, slots=1, context=context, prefill_chunk=plan.prefill_chunk
    )
    reader = disk_reader(draft, layout)
    try:
        loaded = load_model(draft, layout, reader, settings)
    finally:
        reader.close()
    caches = make_caches(draft, capacity=context, window=settings.context_window, reserve=1)
    return DraftModel(
        loaded,
        caches,
        context=context,
        chunk=plan.prefill_chunk,
        vocab_size=model.config.vocab_size,
    )
