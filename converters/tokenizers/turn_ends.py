"""Ends of turns that only a chat template knows, written where every reader looks for ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.checkpoint.dialects.config_values import listed_ids
from edgellm.checkpoint.folder import GENERATION_CONFIG
from edgellm.files.strict_json import parse_json, read_json
from edgellm.tokenizer import Tokenizer

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What transformers takes from config.json where there is no generation_config.json."""


def with_turn_ends(
    companions: Mapping[str, Path | bytes], config: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[Mapping[str, Path | bytes], list[str]]:
    """Return companions whose generation_config.json has all ends, and the added tokens.

    Args:
        companions: files by their names.
        config: the model's config.json.
        tokenizer: of the model; its ``turn_end_ids`` end answers here, whatever the config has.

    Raises:
        FormatError, ReadError: the source's generation_config.json is damaged, or cannot be read.
    """
    given = companions.get(GENERATION_CONFIG)
    if given is None:
        generation = {name: config[name] for name in IDS if config.get(name) is not None}
    elif isinstance(given, bytes):
        generation = parse_json(given, GENERATION_CONFIG)
    else:
        generation = read_json(given)
    named = [*listed_ids(generation.get("eos_token_id")), *listed_ids(config.get("eos_token_id"))]
    missing = sorted(tokenizer.turn_end_ids.difference(named))
    if not missing:
        return companions, []
    known = [item for item in dict.fromkeys(named) if 0 <= item < tokenizer.vocab_size]
    generation["eos_token_id"] = [*known, *missing]
    content = (json.dumps(generation, indent=2) + "\n").encode()
    return {**companions, GENERATION_CONFIG: content}, [*map(tokenizer.id_to_token, missing)]
