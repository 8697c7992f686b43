"""A config that transformers 5 saved, said in the words that mlx-lm's classes read.

Most of them (0.32.2) know nothing of ``rope_parameters``: they would take a base of their own
without a word, and another model would talk.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.models.through_mlx_lm import library

SYNONYMS = (("num_experts", "num_local_experts"),)
"""Names of one number, of which families of mlx-lm's read either."""


def in_old_words(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings to add to a config, or to put in the place of its own.

    Raises:
        UnsupportedModelError: rotary positions differ by kind of layer, which mlx-lm's class of
            this family does not read.
    """
    text = raw.get("text_config")
    if isinstance(text, Mapping):
        return {"text_config": {**text, **_old_words(text)}}
    return _old_words(raw)


def say_unread_scaling(raw: Mapping[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """Warn where mlx-lm's class makes the same model with and without a config's rotary scaling.

    Raises UnsupportedModelError where it does not take the model at all.
    """
    said = {**raw, **settings}
    inner = said.get("text_config", said)
    if not isinstance(inner, Mapping):
        return
    scaling = inner.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        return
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in (None, "default", "mrope"):
        return
    plain = {"rope_scaling": None, "rope_parameters": None}
    without = {**settings, **plain}
    if inner is not said:
        without = {"text_config": {**inner, **plain}}
    before = _parts_of(library.open_model(folder, settings=settings))
    try:
        after = _parts_of(library.open_model(folder, settings=without))
    except UnsupportedModelError:
        return  # it cannot do without, so it reads it
    if before == after:
        warnings.warn(
            f"{library.mlx_lm_name()} does not read the rotary scaling ({quoted(kind)}) of this "
            f"{quoted(said.get('model_type'))}: it is computed without",
            UserWarning,
            stacklevel=5,
        )


def _parts_of(model: Any) -> list[tuple[str, str]]:
    """Return the class and the plain numbers of every module of a model."""
    parts = []
    for module in model.modules():
        values = {**module, **vars(module)}
        plain = {key: value for key, value in values.items() if isinstance(value, int | float)}
        parts.append((type(module).__name__, repr(sorted(plain.items()))))
    return parts


def _old_words(config: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for one, other in SYNONYMS:
        known = config.get(one) or config.get(other)
        if known is not None:
            said |= {one: known, other: known}
    rotary = config.get("rope_parameters")
    if not isinstance(rotary, Mapping):
        return said
    if any(isinstance(kind, Mapping) for kind in rotary.values()):
        return said | _by_kind_of_layer(config.get("model_type"), rotary)
    scaling = dict(rotary)
    theta = scaling.pop("rope_theta", None)
    part = scaling.pop("partial_rotary_factor", None)
    if theta is not None:
        said |= {"rope_theta": theta, "rotary_emb_base": theta}
    if part is not None:
        said |= {"partial_rotary_factor": part, "rotary_pct": part}
    if "rope_scaling" not in config:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        said["rope_scaling"] = None
        if kind != "default":
            said["rope_scaling"] = {**scaling, "rope_type": kind, "type": kind}
    return said


def _by_kind_of_layer(model_type: Any, rotary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two bases of models with windows, as Gemma's families of mlx-lm's read them."""
    fields = library.fields_of(model_type)
    if "rope_parameters" in fields:
        return {}
    full, local = rotary.get("full_attention"), rotary.get("sliding_attention")
    plain = all(
        isinstance(kind, Mapping) and kind.get("rope_type", "default") == "default"
        for kind in (full, local)
    )
    if not plain or "rope_local_base_freq" not in fields:
        raise UnsupportedModelError(
            f"rotary positions of this {str(model_type)[:40]} differ by kind of layer, which "
            f"{library.mlx_lm_name()} does not read",
            hint="take a folder that mlx_lm.convert made, with rope_theta in its config.json",
        )
    assert full is not None
    assert local is not None, "both are objects"
    return {
        "rope_theta": full.get("rope_theta"),
        "rope_local_base_freq": local.get("rope_theta"),
    }
