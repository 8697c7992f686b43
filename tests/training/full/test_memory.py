"""The memory of full fine-tuning is planned: less for smaller micro-batches, or a way round."""

import pytest
from support.tiny import CONFIGS

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import MemoryBudgetError
from edgellm.training.full.memory import plan_full

CONFIG = ModelConfig.from_dict(CONFIGS["llama-3.2"])


def test_smaller_micro_batches_take_less():
    whole = plan_full(CONFIG, 1 << 40, micro_tokens=4096, longest=64)
    assert whole.micro_tokens == 4096
    assert whole.numbers == 16 * whole.count
    assert whole.results
    less = plan_full(CONFIG, whole.total - 1, micro_tokens=4096, longest=64)
    assert (less.micro_tokens, less.results > 0) == (2048, True)
    assert less.total < whole.total
    assert less.total == sum(less.parts.values())
    smallest = plan_full(CONFIG, 1 << 40, micro_tokens=64, longest=64)
    least = plan_full(CONFIG, smallest.total - 1, micro_tokens=4096, longest=64)
    assert least.results == 0, "with no room for results, layers compute them again"
    assert least.total < smallest.total


def test_too_little_memory_names_the_adapter():
    with pytest.raises(MemoryBudgetError, match="learning every number takes") as refused:
        plan_full(CONFIG, 1 << 20, micro_tokens=4096, longest=64)
    assert "LoRA" in refused.value.hint
