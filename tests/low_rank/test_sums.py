"""Sums of adapters: against the sum of their changes, NumPy and PEFT."""

import numpy as np
import pytest
from support.adapters import LLAMA, trained_by_peft, write_peft
from support.lora_files import SOME, UNEVEN, dora_adapter, peft_adapter, products
from support.tiny import write_model

from edgellm.errors import ConfigError, FormatError, UnsupportedModelError
from edgellm.low_rank.conversion import convert_adapter
from edgellm.low_rank.sums import add_adapters


@pytest.fixture
def adapters(tmp_path):
    """Two adapters that share some matrices, in two forms."""
    first = peft_adapter(tmp_path / "first", **UNEVEN)
    peft_adapter(tmp_path / "second in peft", SOME[3:], rank=6)
    convert_adapter(tmp_path / "second in peft", tmp_path / "second", form="mlx-lm")
    return first, tmp_path / "second"


def expected_sum(adapters, weights):
    total = {}
    for folder, weight in zip(adapters, weights, strict=True):
        for path, change in products(folder).items():
            total[path] = total.get(path, 0) + weight * change
    return total


@pytest.mark.parametrize("weights", [None, [1.0, -0.5]])
@pytest.mark.parametrize("form", [None, "mlx-lm"])
def test_ranks_add_and_nothing_is_lost(adapters, tmp_path, weights, form):
    made = add_adapters(adapters, tmp_path / "out", weights=weights, form=form)
    found = products(tmp_path / "out")
    expected = expected_sum(adapters, weights or [1, 1])
    assert found.keys() == expected.keys()
    for path, change in expected.items():
        assert np.abs(found[path] - change).max() < 1e-6
    assert made.error == 0
    assert set(made.ranks.values()) == {4, 10}
    assert (tmp_path / "out" / "adapters.safetensors").exists() == (form == "mlx-lm")


def test_a_rank_gives_the_nearest_sum_and_its_error(adapters, tmp_path):
    made = add_adapters(adapters, tmp_path / "out", rank=5)
    found, expected = products(tmp_path / "out"), expected_sum(adapters, [1, 1])
    left = whole = 0.0
    for path, change in expected.items():
        values = np.linalg.svd(change, compute_uv=False)
        distance = np.linalg.norm(change - found[path])
        assert distance == pytest.approx(np.sqrt((values[5:] ** 2).sum()), abs=1e-5)
        left, whole = left + distance**2, whole + np.linalg.norm(change) ** 2
    assert made.error == pytest.approx(np.sqrt(left / whole), rel=1e-4)
    assert set(made.ranks.values()) == {4, 5}


def test_what_has_no_sum_is_refused(adapters, tmp_path):
    first, _ = adapters
    dora = dora_adapter(tmp_path / "dora")
    with pytest.raises(UnsupportedModelError, match="a sum of DoRAs is none"):
        add_adapters([first, dora], tmp_path / "out")
    with pytest.raises(ConfigError, match="there are 2 adapters and the weights"):
        add_adapters(adapters, tmp_path / "out", weights=[1, 2, 3])
    with pytest.raises(ConfigError, match="weights"):
        add_adapters(adapters, tmp_path / "out", weights=[1, float("nan")])
    other = peft_adapter(tmp_path / "other", [SOME[0]])
    tensors = {
        f"{SOME[0]}.lora_A.weight": np.ones((4, 32), np.float32),
        f"{SOME[0]}.lora_B.weight": np.ones((64, 4), np.float32),
    }
    strange = write_peft(tmp_path / "strange", tensors)
    with pytest.raises(FormatError, match=r"the adapters change .* as"):
        add_adapters([other, strange], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["cat", "svd"])
def test_pefts_weighted_adapter_is_the_same(tmp_path, kind):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    base = write_model(tmp_path / "base", LLAMA)
    for number in range(2):
        model = trained_by_peft(peft, base, target_modules=["q_proj", "down_proj"])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.mul_(1 + number).add_(number * torch.randn_like(parameter) / 9)
        model.save_pretrained(tmp_path / str(number))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "0", adapter_name="one")
    theirs.load_adapter(tmp_path / "1", adapter_name="two")
    options = {"svd_rank": 5} if kind == "svd" else {}
    theirs.add_weighted_adapter(["one", "two"], [1.0, 0.5], "sum", kind, **options)
    theirs.set_adapter("sum")
    add_adapters(
        [tmp_path / "0", tmp_path / "1"],
        tmp_path / "out",
        weights=[1.0, 0.5],
        rank=5 if kind == "svd" else None,
    )
    again = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ours = peft.PeftModel.from_pretrained(again, tmp_path / "out")
    tokens = torch.tensor([[3, 1, 4, 1, 5, 92, 65]])
    with torch.no_grad():
        assert (theirs(tokens).logits - ours(tokens).logits).abs().max() < 1e-4


def test_sums_that_no_number_holds_are_refused(adapters, tmp_path):
    huge = peft_adapter(tmp_path / "huge", lora_alpha=1e38)
    with pytest.raises(FormatError, match="infinite") as refused:
        add_adapters([huge, adapters[0]], tmp_path / "out", weights=[1e5, 1.0])
    assert refused.value.hint
    assert not (tmp_path / "out").exists()
