"""The speculation that a model's settings ask for, with its drafter."""

from __future__ import annotations

from contextlib import closing

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine as device
from edgellm.errors import ConfigError
from edgellm.memory_plan.budget_planner import make_plan
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import draft_checkpoint, draft_estimate
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.model import Model
from edgellm.runtime.loader import load_model, make_caches, open_reader
from edgellm.settings import LoadSettings
from edgellm.speculation.controller import MAX_DRAFT_TOKENS, Speculation
from edgellm.speculation.draft_model import DraftModel
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import Drafter
from edgellm.speculation.recycling import RecyclingDrafter
from edgellm.tokenizer import Tokenizer

EXTRA_ROW_COST = {"paged": 0.01, "gpu": 0.03, "kernels": 0.15, "mlx": 1.0}
"""What one more row costs of a step, before it was measured: where the disk is the limit, on a GPU,
with our CPU kernels (which hold a weight while it meets 16 rows), and with MLX's on a CPU (which
read it again for each)."""


def make_speculation(
    model: Model, tokenizer: Tokenizer, settings: LoadSettings, plan: Plan
) -> Speculation | None:
    """Return what speculates for a model; None where the settings say off. Loads a draft model.

    Raises:
        ConfigError: the draft model has another tokenizer.
        EdgeLLMError: it cannot be loaded; as ``load``.
    """
    if settings.speculate == "off":
        return None
    drafter: Drafter = NGramDrafter()
    # in memory, further rows cost more than the tokens of such a tree are worth
    if settings.speculate == "auto" and model.layers.takes_trees and not plan.resident:
        drafter = RecyclingDrafter()
    draft = draft_checkpoint(settings)
    if draft is not None:
        drafter = load_draft(draft, model, tokenizer, settings, plan)
    return Speculation(
        drafter,
        max_draft_tokens=max_draft_tokens(model),
        extra_row_cost=EXTRA_ROW_COST[_bottleneck(model, plan)],
    )


def max_draft_tokens(model: Model) -> int:
    """Return how many draft tokens a step may have.

    With more the CPU's kernels would take another way, on which a row is not what it is alone.
    """
    max_exact_rows = model.layers.max_exact_rows
    if not max_exact_rows:
        return MAX_DRAFT_TOKENS
    return min(MAX_DRAFT_TOKENS, max_exact_rows - 1)


def load_draft(
    draft: Checkpoint, model: Model, tokenizer: Tokenizer, settings: LoadSettings, plan: Plan
) -> DraftModel:
    """Load a draft model for a model. Errors are those of ``make_speculation``."""
    own = Tokenizer.from_folder(draft.folder.path, vocab_size=draft.config.vocab_size)
    difference = tokenizer.difference(own)
    if difference is not None:
        raise ConfigError(
            f"the draft model {settings.draft} has another tokenizer: {difference}",
            hint="a draft must share the model's tokenizer:"
            " take a smaller model of the same family",
        )
    estimate = draft_estimate(draft, settings)
    chunk = plan.prefill_chunk
    context = min(plan.context, estimate.max_context)
    # The model's own plan has counted the draft in already: here it gets all that it needs.
    total_bytes = (
        estimate.weight_bytes
        + estimate.prefill_bytes(context, resident=True)
        + estimate.activation_bytes(chunk, context)
    )
    draft_plan = make_plan(
        estimate, budget=total_bytes, ring_buffers=1, context=context, prefill_chunk=chunk
    )
    with closing(open_reader(draft, draft_plan)) as reader:
        loaded = load_model(draft, draft_plan, reader, settings)
    return DraftModel(
        loaded,
        make_caches(
            draft,
            capacity=context,
            window=settings.context_window,
            reserve=1,
            kv_bits=arithmetic_of(draft, settings).kv_bits,
        ),
        context=context,
        prefill_chunk=chunk,
        vocab_size=model.config.vocab_size,
    )


def _bottleneck(model: Model, plan: Plan) -> str:
    """Return the key of ``EXTRA_ROW_COST`` that holds for a model."""
    if not device.has_gpu() and not model.layers.max_exact_rows:
        return "mlx"  # paged or not: each row takes the arithmetic of a whole product
    if not plan.resident:
        return "paged"
    return "gpu" if device.has_gpu() else "kernels"
