"""A model folder read for the bench's model in torch."""

from dataclasses import replace

import pytest

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import UnsupportedModelError

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="torch is not installed")

from edgellm.bench.torch_backend.loader import load_model


def test_a_family_that_is_computed_otherwise_is_refused_before_a_weight_is_read(tiny_folder):
    checkpoint = read_checkpoint(tiny_folder("llama-2"))
    other = replace(checkpoint, config=replace(checkpoint.config, model_type="gemma"))
    with pytest.raises(UnsupportedModelError, match="gemma"):
        load_model(other, factory=None)
