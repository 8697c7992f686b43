"""The GGUF files of a repository: models by the name of their first file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from edgellm.errors import ModelNotFoundError
from edgellm.files.strict_json import quoted
from edgellm.hub.names import GGUF_SUFFIX, HubName, is_path

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)

NO_MODEL = re.compile(r".*(mmproj|imatrix)[^/]*", re.IGNORECASE)
"""Parts of other models, and statistics, that lie beside the models."""

QUANT = re.compile(r"(?:UD-)?(?:I?Q\d\w*|T?Q\d_\d|BF16|F16|F32|MXFP4\w*|NVFP4\w*)", re.IGNORECASE)

MOST_NAMED = 12
"""Maximum number of models that an error names."""


def gguf_models(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of each model, by the first of them, where no shard is missing.

    Args:
        names: the names of all files of a repository.
    """
    models: dict[str, list[str]] = {}
    shards: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        is_model = name.lower().endswith(GGUF_SUFFIX) and not NO_MODEL.fullmatch(name)
        if not is_model or not is_path(name):
            continue
        if found := SHARD.fullmatch(name):
            shards.setdefault((found[1], found[3]), []).append(name)
        else:
            models[name] = [name]
    for (_, count), files in shards.items():
        if len(files) == int(count):
            models[files[0]] = files
    return models


def pick_model(name: HubName, names: Iterable[str]) -> list[str]:
    """Return the files, the first one first, of the model that ``name`` means.

    Args:
        name: names a GGUF file, or a quantization as files' names have it, in any case.
        names: the names of all files of the repository.

    Raises:
        ModelNotFoundError: there is no such model, or there are several.
    """
    models = gguf_models(names)
    if not models:
        raise ModelNotFoundError(
            f"{name.repository} on the Hub holds no whole GGUF model",
            hint=f"name it without a file, if it has others: {name.repository}",
        )
    if name.file is not None:
        for files in models.values():
            if name.file in files:
                return files
        raise ModelNotFoundError(
            f"{name.repository} on the Hub has no model {quoted(name.file)}",
            hint=say_models(name.repository, models),
        )
    found = _named(name.quant or "", models)
    if len(found) > 1:
        listed = " or ".join(f"{name.repository}/{first}" for first in found[:3])
        raise ModelNotFoundError(
            f"{name.repository} on the Hub has {len(found)} models of the name {name.quant}",
            hint=f"name the file: {listed}",
        )
    if not found:
        raise ModelNotFoundError(
            f"{name.repository} on the Hub has no GGUF model {name.quant}",
            hint=say_models(name.repository, models),
        )
    return models[found[0]]


def model_names(repository: str, models: Iterable[str]) -> dict[str, str]:
    """Return the names that models of a repository can be asked for by, by their first files."""
    named = {}
    for first in models:
        quants = QUANT.findall(_stem(first))
        named[first] = f"{repository}/{first}"
        if quants and _named(quants[-1], models) == [first]:
            named[first] = f"{repository}:{quants[-1]}"
    return named


def say_models(repository: str, models: Mapping[str, Sequence[str]]) -> str:
    """Return a hint that names the models of a repository as they can be asked for."""
    named = list(model_names(repository, models).values())
    listed = ", ".join(named[:MOST_NAMED])
    if len(named) > MOST_NAMED:
        listed += f" and {len(named) - MOST_NAMED} more"
    return f"name one of its models: {listed}"


def _named(quant: str, models: Iterable[str]) -> list[str]:
    """Return the models that a quantization may mean: those whose names have it as a part."""
    tag = re.compile(rf"(?:.*[-._/])?{re.escape(quant)}(?:[-./].*)?", re.IGNORECASE)
    found = [first for first in models if tag.fullmatch(_stem(first))]
    # those of several makers lie in folders, or have more in their names
    plain = [first for first in found if "/" not in first and "UD-" not in first]
    if len(found) > 1 and plain:
        return plain
    return found


def _stem(first: str) -> str:
    """Return a model's name: without the ending, and without the number of the shard."""
    found = SHARD.fullmatch(first)
    if found:
        return found[1]
    return first[: -len(GGUF_SUFFIX)]
