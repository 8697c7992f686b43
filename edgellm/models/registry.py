"""From a model's family to its decoder block.

A new family is a row in ``checkpoint.family_configs`` and, where its block differs, a file here.
"""

from __future__ import annotations

from importlib import import_module

from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.llama import Block


def block_class(config: ModelConfig) -> type[Block]:
    """Import the decoder block of a model's family."""
    module, _, name = FAMILIES[config.model_type].block.partition(":")
    block: type[Block] = getattr(import_module(module), name)
    return block
