"""Settings that AutoGPTQ and AutoAWQ once wrote in files of their own, beside config.json."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside
from edgellm.files.strict_json import read_json

GPTQ_CONFIG = "quantize_config.json"
AWQ_CONFIG = "quant_config.json"
METHODS = {GPTQ_CONFIG: "gptq", AWQ_CONFIG: "awq"}
CODES = ".qweight"


def block_of_own_file(path: Path, tensors: Iterable[str]) -> dict[str, Any] | None:
    """Return the block of a config that a folder lacks and such a file has; None: there is none.

    Raises FormatError, ReadError.
    """
    if not any(name.endswith(CODES) for name in tensors):
        return None
    for name, method in METHODS.items():
        if (path / name).exists():
            said = {key: item for key, item in _read(path, name).items() if item is not None}
            if said.get("is_marlin_format") is True:
                said["checkpoint_format"] = "marlin"
            return {"quant_method": method} | said
    return None


def own_weight_names(path: Path) -> str | None:
    """Return the pattern of AutoGPTQ's weight files where they are called as it called them.

    Those of other groups may lie beside them. Raises FormatError, ReadError.
    """
    if not (path / GPTQ_CONFIG).exists() or any(path.glob("model*.safetensors")):
        return None
    said = _read(path, GPTQ_CONFIG)
    named = said.get("model_file_base_name")
    usual = f"gptq_model-{said.get('bits')}bit-{said.get('group_size')}g"
    for name in (named, usual):
        if isinstance(name, str) and any(path.glob(f"{glob.escape(name)}*.safetensors")):
            return f"{glob.escape(name)}*.safetensors"
    files = [file.name for file in path.glob("*.safetensors")]
    if len(files) == 1:
        return glob.escape(files[0])
    return None


def _read(path: Path, name: str) -> Mapping[str, Any]:
    return read_json(inside(path, name))
