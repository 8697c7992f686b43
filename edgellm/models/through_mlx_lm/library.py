"""mlx-lm itself: imported at its first use, its errors said as ours.

Its package imports transformers, whichever part is asked for: about 2 s, once a process.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.errors import EdgeLLMError, UnsupportedModelError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A model_type that can be the name of a module."""

SAID_CHARACTERS = 200
"""Of a message of mlx-lm's, which may list every tensor."""


def mlx_lm_name() -> str:
    """Return ``mlx-lm`` with its version."""
    from importlib.metadata import version  # slow to import

    return f"mlx-lm {version('mlx-lm')}"


def has_family(model_type: object) -> bool:
    """Return whether mlx-lm has a model class for a config's ``model_type``."""
    return bool(fields_of(model_type))


def fields_of(model_type: object) -> frozenset[str]:
    """Return the keys of a config that mlx-lm's class reads; none where it has no such family."""
    if not isinstance(model_type, str):
        return frozenset()
    name = str(_utils().MODEL_REMAPPING.get(model_type, model_type))
    if not NAME.fullmatch(name):
        return frozenset()
    try:
        # some print, and olmo's ends the process, where a package of theirs is not installed
        with redirect_stdout(sys.stderr):
            module = import_module(f"mlx_lm.models.{name}")
    except (ImportError, SystemExit):
        return frozenset()
    members = vars(module)
    if "Model" not in members or not is_dataclass(members.get("ModelArgs")):
        return frozenset()
    return frozenset(field.name for field in fields(members["ModelArgs"]))


def open_model(
    folder: Path, *, settings: dict[str, Any] | None = None, name: Path | None = None
) -> Any:
    """Return mlx-lm's model of a folder; its weights are read when they are evaluated.

    Args:
        folder: the model's.
        settings: settings that take the place of those in its config.
        name: the name that errors call it by; None: its own.

    Raises:
        UnsupportedModelError: mlx-lm does not take it: tensors or numbers are not what its class
            needs.
    """
    with renamed_errors(f"does not open {name or folder}"):
        load_model = _utils().load_model
        usual = signature(load_model).parameters["get_model_classes"].default

        def checked_classes(config: dict[str, Any]) -> tuple[Any, Any]:
            model_class, arguments_class = usual(config)
            return partial(_checked, model_class), arguments_class

        return load_model(
            folder,
            lazy=True,
            model_config=settings,
            get_model_classes=checked_classes,
            trust_remote_code=False,
        )[0]


def _checked(model_class: Any, arguments: Any) -> Any:
    """Return a model that looks at the shapes of quantized weights when it is given them.

    mlx-lm infers a group's size from them and the config; one of 0 ends the process inside MLX.
    """
    model = model_class(arguments)
    sanitize = getattr(model, "sanitize", None)

    def checked_sanitize(weights: dict[str, mx.array]) -> dict[str, mx.array]:
        if sanitize is not None:
            weights = sanitize(weights)
        for path, module in model.named_modules():
            scales, weight = weights.get(f"{path}.scales"), module.get("weight")
            if scales is None or not isinstance(weight, mx.array):
                continue
            # AWQ's and GPTQ's have their groups in rows
            axis = -1 if f"{path}.qweight" not in weights else 0
            if not scales.ndim or not 0 < scales.shape[axis] <= weight.shape[-1]:
                raise ValueError(
                    f"{path} has rows of {weight.shape[-1]}, its scales {scales.shape}"
                )
        return weights

    model.sanitize = checked_sanitize
    return model


def count_parameters(model: Any) -> int:
    """Return the parameters of a model, quantized or not."""
    return int(_utils().get_total_parameters(model))


def make_caches(model: Any) -> list[Any]:
    """Return empty caches of mlx-lm's, as its model wants them."""
    from mlx_lm.models.cache import make_prompt_cache

    return list(make_prompt_cache(model))


def tool_parser(name: str) -> tuple[str, str, Callable[..., Any]]:
    """Return the texts around tool calls, and what reads them, of a module of mlx-lm's."""
    with renamed_errors("cannot read this model's tool calls"):
        module = import_module(f"mlx_lm.tool_parsers.{name}")
        return module.tool_call_start, module.tool_call_end, module.parse_tool_call


def arrays_in(tree: Any) -> list[mx.array]:
    """Return the arrays of a tree of lists, tuples and dictionaries, and nothing else of it."""
    from mlx.utils import tree_flatten

    leaves: Any = tree_flatten(tree)
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


@contextmanager
def renamed_errors(does_not: str) -> Iterator[None]:
    """Raise UnsupportedModelError for whatever mlx-lm raises.

    Args:
        does_not: says what mlx-lm does not do then.
    """
    try:
        yield
    except EdgeLLMError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if len(reason) > SAID_CHARACTERS:
            reason = reason[:SAID_CHARACTERS] + "..."
        raise UnsupportedModelError(
            f"{mlx_lm_name()} {does_not}: {' '.join(reason.split())}",
            hint="download the model again; if it is complete, a newer mlx-lm may run it",
        ) from error


def _utils() -> Any:
    """Import ``mlx_lm.utils``, which lowers the limit of open files: the soft one is put back."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with renamed_errors("cannot be imported"):
        utils = import_module("mlx_lm.utils")
    lowered, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if lowered < soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
    return utils
