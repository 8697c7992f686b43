"""The tokenizer beside Mistral's own weights as a model folder has it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgellm.checkpoint.folder import inside
from edgellm.converters.tokenizers.mistral_templates import (
    TEMPLATES,
    mistral_settings,
    no_template_note,
)
from edgellm.converters.tokenizers.tekken import TEKKEN, tekken_companions
from edgellm.files.bounded import read_bounded
from edgellm.tokenizer.spm import MAX_BYTES
from edgellm.tokenizer.spm_proto import CONTROL, UNKNOWN, read_piece_model

PIECES = re.compile(r"[^.]+\.model(?:\.(v\d{1,3})(?:m\d)?)?")
"""Names of SentencePiece files: without a version, it is the first."""


def mistral_tokenizer(path: Path) -> tuple[dict[str, Path | bytes], Path | None, list[str]]:
    """Return a folder's tokenizer as files of a model folder, where it lies, and what to tell.

    Of several, tekken.json is taken, else the last by its name, as in mistral-common.

    Raises:
        FormatError, TokenizerError: it is damaged.
        ReadError: it cannot be read.
    """
    if (path / TEKKEN).exists():
        file = inside(path, TEKKEN)
        files, notes = tekken_companions(file)
        return files, file, notes
    names = sorted(file.name for file in path.iterdir() if PIECES.fullmatch(file.name))
    if not names:
        return {}, None, []
    file = inside(path, names[-1])
    files, notes = piece_companions(file)
    return files, file, notes


def piece_companions(file: Path) -> tuple[dict[str, Path | bytes], list[str]]:
    """Return the same of a SentencePiece file, whose name tells its version."""
    named = PIECES.fullmatch(file.name)
    version = "v1"
    if named is not None and named[1]:
        version = named[1]
    model = read_piece_model(read_bounded(file, MAX_BYTES))
    special = [
        piece
        for piece, kind in zip(model.pieces, model.kinds, strict=True)
        if kind in (CONTROL, UNKNOWN)
    ]
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        # mistral-common encodes what stands between special tokens as texts of their own
        "legacy": True,
        "additional_special_tokens": special,
        **mistral_settings(version, special),
    }
    config = (json.dumps(settings, indent=2) + "\n").encode()
    notes = []
    if version not in TEMPLATES:
        notes.append(no_template_note(version))
    return {"tokenizer.model": file, "tokenizer_config.json": config}, notes
