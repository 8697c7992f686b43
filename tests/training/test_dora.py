"""DoRA: it begins as the model is, wherever its layers are, and others open what it learned."""

import dataclasses
import json
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from support.folders import tensors_of
from support.lora_files import tuned_model
from support.tiny import CONFIGS, LAYERS, LLAMA, write_model
from support.training import (
    LORA,
    are_equal,
    in_four_bits,
    moved,
    open_training,
    sequences,
    slopes,
)

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.learners.adapted_model import AdaptedModel
from edgellm.training.learners.token_loss import step_gradients, step_loss
from edgellm.training.low_rank import count_learned, count_numbers
from edgellm.training.micro_batch import micro_batches
from edgellm.training.run.saved_state import are_finite

DORA = dataclasses.replace(LORA, dora=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"), CONFIGS["llama-biases"])


def initial(folder, opened, lora=DORA):
    config = read_checkpoint(folder).config
    return AdaptedModel(opened, config, lora, micro_tokens=1000, seed=0).initial()


def loss(opened, changes):
    total, asked = step_loss(opened.model, micro_batches(sequences(), 1000), changes)
    opened.model.layers.restart()
    return total / asked


def test_it_begins_as_the_model_is(folder):
    opened = open_training(folder, lora=DORA)
    changes = initial(folder, opened)
    assert loss(opened, changes) == loss(opened, [{} for _ in changes])
    config = read_checkpoint(folder).config
    assert count_numbers(changes) == count_learned(config, DORA)
    opened.close()


def test_rows_of_zeros_stay_zeros(tmp_path):
    """A length of 0 over a length of 0: the row is what it was, and no loss is spoiled."""
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float32)
    path = f"model.layers.1.{DORA.targets[0]}"
    rows = np.pad(-np.array(tensors_of(source)[f"{path}.weight"])[3:5], ((3, 59), (0, 0)))
    convert(tuned_model(source, tmp_path / "zeros", {path: rows}), tmp_path / "16", bits=16)
    opened = open_training(tmp_path / "16", lora=DORA)
    changes = initial(tmp_path / "16", opened)
    lengths = changes[1][f"{DORA.targets[0]}.lora_magnitude_vector"]
    assert np.flatnonzero(np.array(lengths) == 0).tolist() == [3, 4]
    assert loss(opened, changes) == loss(opened, [{} for _ in changes])
    found = step_gradients(opened.model, micro_batches(sequences(), 1000), changes)
    assert are_finite(found.by_changes)
    opened.close()


@pytest.mark.parametrize(("pinned", "buffers"), [(0, 2), (2, 2)])
def test_paged_layers_give_the_same_bits(folder, pinned, buffers):
    found = []
    for where in ({"pinned": range(LAYERS)}, {"pinned": range(pinned), "buffers": buffers}):
        opened = open_training(folder, lora=DORA, **where)
        changes = moved(initial(folder, opened), 0.05)
        batches = micro_batches(sequences(), 1000)
        for _ in range(2):
            before = opened.model.layers.reads
            step = step_gradients(opened.model, batches, changes)
        found.append(step)
        reads = opened.model.layers.reads - before
        opened.close()
    assert found[0].loss == found[1].loss
    assert are_equal(found[0].by_changes, found[1].by_changes)
    assert reads == 2 * (LAYERS - pinned - buffers), "the lengths of rows take no reads"


def test_derivatives_by_lengths_are_those_of_the_loss(folder):
    opened = open_training(folder, lora=DORA, pinned=range(LAYERS))
    changes = moved(initial(folder, opened), 0.05)
    found = step_gradients(opened.model, micro_batches(sequences(), 1000), changes)
    told, slope = slopes(partial(loss, opened), changes, found.by_changes, only="vector")
    opened.close()
    assert told == pytest.approx(slope, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("form", ["peft", "mlx-lm"])
@pytest.mark.parametrize("patterns", [False, True])
def test_merged_into_the_weights_it_gives_the_same_loss(tmp_path, form, patterns):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float32)
    base = tmp_path / "base"
    convert(source, base, bits=16)
    lora = DORA
    if patterns:  # ranks and alphas of some matrices' own, and one that is left out
        lora = dataclasses.replace(
            DORA,
            ranks={"1.self_attn.q_proj": 6, "2.mlp.up_proj": 2},
            alphas={"1.self_attn.q_proj": 3.0},
            left_out=("0.self_attn.v_proj",),
        )
    opened = open_training(base, lora=lora)
    changes = moved(initial(base, opened, lora), 0.05)
    assert ("self_attn.v_proj.lora_A" in changes[0]) is not patterns
    expected = loss(opened, changes)
    opened.close()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_adapter(adapter, changes, lora, base="base", form=form)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config.get("use_dora") or config.get("fine_tune_type") == "dora"
    convert(source, tmp_path / "merged", bits=16, adapter=adapter)
    opened = open_training(tmp_path / "merged")
    assert loss(opened, [{} for _ in changes]) == pytest.approx(expected, abs=2e-5)
    opened.close()


@pytest.mark.parametrize("dora", [False, True])
def test_mlx_lm_opens_what_was_learned_with_the_same_loss(tmp_path, dora):
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    source = write_model(tmp_path / "source", CONFIGS["llama-2"], dtype=mx.float32)
    base = tmp_path / "base"
    convert(source, base, bits=16)
    lora = dataclasses.replace(
        LORA, dora=dora, layers=3, ranks={"2.mlp.up_proj": 2}, alphas={"1.self_attn.q_proj": 3.0}
    )
    opened = open_training(base, lora=lora)
    changes = moved(initial(base, opened, lora), 0.05)
    expected = loss(opened, changes)
    opened.close()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_adapter(adapter, changes, lora, base="base", form="mlx-lm")
    model, _ = load_model(source)
    model = load_adapters(model, str(adapter))
    total, asked = 0.0, 0
    for one in sequences():
        logits = model(mx.array(one.tokens)[None])[0]
        targets = mx.array(one.targets)
        losses = mx.logsumexp(logits, axis=-1) - mx.take_along_axis(
            logits, mx.maximum(targets, 0)[:, None], axis=-1
        ).squeeze(-1)
        total += (losses * (targets >= 0)).sum().item()
        asked += one.asked
    assert total / asked == pytest.approx(expected, abs=2e-5)
