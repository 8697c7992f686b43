"""Adapters that runs begin with: their settings and numbers, and those that are refused."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import LLAMA, peft_tensors, trained_by_mlx_lm, trained_by_peft, write_peft
from support.tiny import LAYERS, write_model
from support.training import LORA, open_training, sequences

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.learners.token_loss import step_loss
from edgellm.training.low_rank import MODULES, LoraSettings, initial_changes
from edgellm.training.micro_batch import micro_batches
from edgellm.training.start_adapter import Start, open_start

PATHS = ["model.layers.1.self_attn.q_proj", "model.layers.3.mlp.down_proj"]
Q, DOWN = MODULES["q"], MODULES["down"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "base", LLAMA, dtype=mx.float32)


@pytest.fixture(scope="module")
def folder(base):
    convert(base, base.with_name("sixteen"), bits=16)
    return base.with_name("sixteen")


def opened(folder, adapter, **given):
    start = Start(adapter, frozenset(given))
    return open_start(start, read_checkpoint(folder), LoraSettings(**given))


def loss(folder, start):
    model = open_training(folder, lora=start.lora)
    try:
        total, asked = step_loss(model.model, micro_batches(sequences(), 1000), start.numbers())
        return total / asked
    finally:
        model.close()


def test_settings_follow_from_the_adapter(folder, tmp_path):
    tensors = peft_tensors(PATHS)
    adapter = write_peft(
        tmp_path / "a", tensors, alpha_pattern={"layers.3.mlp.down_proj": 5}, use_rslora=True
    )
    start = opened(folder, adapter)
    lora = start.lora
    assert (lora.rank, lora.rslora, lora.dora, lora.layers) == (4, True, False, 3)
    assert lora.targets == (Q, DOWN)
    assert lora.dropout == LoraSettings().dropout, "it is of training, not of the adapter"
    assert (lora.scale_of(1, Q), lora.scale_of(3, DOWN)) == (8, 2.5)
    assert {*lora.left_out} == {"2.self_attn.q_proj", "3.self_attn.q_proj"} | {
        "1.mlp.down_proj",
        "2.mlp.down_proj",
    }
    numbers = start.numbers()
    assert [sorted(change) for change in numbers] == [
        [],
        [f"{Q}.lora_A", f"{Q}.lora_B"],
        [],
        [f"{DOWN}.lora_A", f"{DOWN}.lora_B"],
    ]
    np.testing.assert_array_equal(
        np.array(numbers[1][f"{Q}.lora_B"]), tensors[f"{PATHS[0]}.lora_B.weight"]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 8}, "--rank is 8, and the adapter .* has 4"),
        ({"alpha": 8.0}, "--alpha is 8, and the adapter .* has 16"),
        ({"targets": (Q,)}, "--on is q, and the adapter .* has q,down"),
        ({"layers": 2}, "--layers is 2, and the adapter .* has 3"),
        ({"rslora": True}, "--rslora is on, and the adapter .* has off"),
        ({"dora": True}, "--dora is on, and the adapter .* has off"),
    ],
)
def test_what_is_asked_for_and_is_otherwise_is_refused(folder, tmp_path, given, message):
    adapter = write_peft(tmp_path / "a", peft_tensors(PATHS))
    with pytest.raises(ConfigError, match=message):
        opened(folder, adapter, **given)
    same = {"rank": 4, "alpha": 16.0, "targets": (Q, DOWN), "layers": 3}
    assert opened(folder, adapter, **same).lora.rank == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"init_lora_weights": "pissa"}, "changes the base model too"),
        ({"init_lora_weights": "lora_ga"}, "changes the base model too"),
        ({"use_dora": True}, "lacks DoRA's lengths"),
    ],
)
def test_adapters_of_another_kind_are_refused(folder, tmp_path, config, message):
    adapter = write_peft(tmp_path / "a", peft_tensors(PATHS), **config)
    with pytest.raises(EdgeLLMError, match=message):
        opened(folder, adapter)


def test_numbers_that_are_none_biases_and_another_base_are_refused(folder, tmp_path):
    tensors = peft_tensors(PATHS)
    bad = dict(tensors)
    bad[f"{PATHS[0]}.lora_A.weight"] = np.full_like(bad[f"{PATHS[0]}.lora_A.weight"], np.nan)
    with pytest.raises(EdgeLLMError, match="infinite or not a number"):
        opened(folder, write_peft(tmp_path / "nan", bad)).numbers()
    biased = tensors | {f"{PATHS[0]}.base_layer.bias": np.zeros(64, np.float32)}
    with pytest.raises(EdgeLLMError, match="brings tensors of its own"):
        opened(folder, write_peft(tmp_path / "bias", biased, bias="all"))
    other = {name: np.pad(values, ((0, 1), (0, 1))) for name, values in tensors.items()}
    with pytest.raises(EdgeLLMError, match="the matrix is"):
        opened(folder, write_peft(tmp_path / "other", other))


@pytest.mark.parametrize("form", ["peft", "mlx-lm"])
@pytest.mark.parametrize("dora", [False, True])
def test_what_a_run_wrote_starts_the_next(folder, tmp_path, form, dora):
    lora = dataclasses.replace(
        LORA,
        dora=dora,
        rslora=True,
        layers=3,
        ranks={"2.mlp.up_proj": 6},
        left_out=("3.mlp.up_proj",),
    )
    changes = initial_changes(read_checkpoint(folder).config, lora, 0)
    for change in changes:
        for name in list(change):
            change[name] = change[name] + 0.03
            if dora and name.endswith("lora_B"):
                key = name.replace("lora_B", "lora_magnitude_vector")
                change[key] = mx.ones(change[name].shape[0])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_adapter(adapter, changes, lora, base="base", form=form)
    start = opened(folder, adapter)
    assert (start.lora.dora, start.lora.layers) == (dora, 3)
    expected = open_training(folder, lora=lora)
    total, asked = step_loss(expected.model, micro_batches(sequences(), 1000), changes)
    expected.close()
    assert loss(folder, start) == pytest.approx(total / asked, abs=2e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_of_mlx_lm_start_with_its_loss(base, folder, tmp_path, kind):
    model = trained_by_mlx_lm(base, tmp_path / "a", [Q, DOWN], kind)
    start = opened(folder, tmp_path / "a")
    assert (start.lora.layers, start.lora.scale) == (2, 7)
    total, asked = 0.0, 0
    for one in sequences():
        logits = model(mx.array(one.tokens)[None])[0]
        for row, target in enumerate(one.targets):
            if target >= 0:
                total += (mx.logsumexp(logits[row]) - logits[row, target]).item()
                asked += 1
    assert loss(folder, start) == pytest.approx(total / asked, abs=2e-5)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "more",
    [
        {"use_dora": True},
        {"use_rslora": True, "layers_to_transform": [0, 2]},
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {".*down_proj": 5},
        },
    ],
)
def test_adapters_of_peft_start_with_its_loss_and_it_opens_ours(base, folder, tmp_path, more):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    def their_loss(model):
        total, asked = 0.0, 0
        with torch.no_grad():
            for one in sequences():
                logits = model(torch.tensor([one.tokens])).logits[0]
                targets = torch.tensor(one.targets)
                total += torch.nn.functional.cross_entropy(
                    logits[targets >= 0], targets[targets >= 0], reduction="sum"
                ).item()
                asked += one.asked
        return total / asked

    model = trained_by_peft(peft, base, target_modules=["q_proj", "down_proj"], **more).eval()
    model.save_pretrained(tmp_path / "theirs")
    start = opened(folder, tmp_path / "theirs")
    assert loss(folder, start) == pytest.approx(their_loss(model), abs=2e-5)
    ours = tmp_path / "ours"
    ours.mkdir()
    write_adapter(ours, start.numbers(), start.lora, base=str(base))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    again = peft.PeftModel.from_pretrained(plain, ours).eval()
    assert their_loss(again) == pytest.approx(their_loss(model), abs=1e-6)


def test_config_is_read_as_it_was_written(folder, tmp_path):
    """What PEFT must know to build the same matrices."""
    lora = dataclasses.replace(LORA, targets=(Q, DOWN), left_out=("0.self_attn.q_proj",))
    changes = initial_changes(read_checkpoint(folder).config, lora, 0)
    (tmp_path / "a").mkdir()
    write_adapter(tmp_path / "a", changes, lora, base="base")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 2 * LAYERS - 1
    assert "model.layers.0.self_attn.q_proj" not in config["target_modules"]


def test_a_scale_may_be_below_0_but_neither_0_nor_too_large(folder, tmp_path):
    tensors = peft_tensors(PATHS)
    start = opened(folder, write_peft(tmp_path / "below", tensors, lora_alpha=-8))
    assert (start.lora.alpha, start.lora.scale) == (-8, -2)
    with pytest.raises(ConfigError, match="alpha is 0") as refused:
        opened(folder, write_peft(tmp_path / "none", tensors, lora_alpha=0))
    assert refused.value.hint
    large = opened(
        folder,
        write_peft(tmp_path / "large", {k: 1e30 * v for k, v in tensors.items()}, lora_alpha=1e20),
    )
    with pytest.raises(EdgeLLMError, match="infinite"):
        large.numbers()
