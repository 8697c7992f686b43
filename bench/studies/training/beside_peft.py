"""Compare training with PEFT, with TRL's loss and with mlx-lm's layers, number by number.

    python -m edgellm.bench.studies.training.beside_peft MODEL [--kinds lora,rslora,...]
        [--records 4] [--tokens 96] [--steps 5] [--rank 8] [--rate 1e-3]

All compute in float32, of the same weights (quantized ones are dequantized for torch), from the
same numbers, on the same tokens: windows of our own text, of which the first third is not learned.
Each step clips derivatives and follows a cosine, AdamW in both. Reported are, of each kind: by how
much the first loss differs, by how much the first derivatives do (as a share of the largest), by
how much the losses of all steps do, and, of steps that are cut otherwise, losses and derivatives.

``mlx`` compares loss and derivatives with mlx-lm's layers on the weights as they are stored.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.bench.backends.transformers import load_model
from edgellm.bench.evaluation.passages import PASSAGES
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.terminal import write_line
from edgellm.hub.resolve import locate
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.learners.learner import Learner
from edgellm.training.learners.preference import PreferenceLearner
from edgellm.training.low_rank import Change, LoraSettings, matrix_name, targets_named
from edgellm.training.micro_batch import NOT_ASKED, PreferencePair, TrainingSequence, token_ids
from edgellm.training.optimizer import AdamW, RateSettings, clip_factor, norm_of
from edgellm.training.trained_model import LayersInMemory, OpenModel

BETA = 0.1
"""Of preferences."""

KINDS = ("lora", "rslora", "patterns", "layers", "dora", "dpo", "mlx")


@dataclass(frozen=True, slots=True)
class Study:
    """A model, the records that it learns, and how.

    Attributes:
        checkpoint: the model.
        records: that every step learns.
        lora: the changes, of all matrices.
        rates: how far numbers move.
        steps: that are taken.
    """

    checkpoint: Checkpoint
    records: Sequence[TrainingSequence]
    lora: LoraSettings
    rates: RateSettings
    steps: int

    def compare(self, kind: str) -> str:
        """Return how a kind differs from PEFT's, in words."""
        lora = _changed(self.lora, kind, self.checkpoint.config.num_hidden_layers)
        items: Sequence[Any] = self.records
        if kind == "dpo":
            pairs = zip(self.records[::2], self.records[1::2], strict=True)
            items = [PreferencePair(*pair) for pair in pairs]
        with closing(self._learner(lora, kind)) as learner:
            numbers = [dict(change) for change in learner.initial()]
            model, parameters = _in_peft(self.checkpoint, lora, numbers)
            decayed = [each for each in parameters.values() if each.ndim > 1]
            others = [each for each in parameters.values() if each.ndim <= 1]
            import torch

            theirs: Any = torch.optim.AdamW(
                [
                    {"params": decayed, "weight_decay": self.rates.decay},
                    {"params": others, "weight_decay": 0.0},
                ]
            )
            ours = AdamW(self.rates)
            losses, slopes = [], []
            for step in range(self.steps):
                found = learner.gradients(items, numbers, step)
                theirs.zero_grad()
                loss = _preference_loss(model, items) if kind == "dpo" else _loss(model, items)
                loss.backward()
                losses.append(abs(found.loss - float(loss.detach())))
                slopes.append(_largest_difference(found.by_changes, parameters))
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), self.rates.clip)
                rate = self.rates.at(step, self.steps)
                for group in theirs.param_groups:
                    group["lr"] = rate
                theirs.step()
                factor = clip_factor(norm_of(found.by_changes), self.rates.clip)
                ours.move(numbers, found.by_changes, rate, factor)
            whole = learner.gradients(items, numbers, 0)
        with closing(self._learner(lora, kind, micro_tokens=1)) as learner:
            cut = learner.gradients(items, numbers, 0)
        return (
            f"first loss {losses[0]:.1e}, first derivatives {slopes[0]:.1e}, "
            f"losses of {self.steps} steps {max(losses):.1e}; cut: loss "
            f"{abs(whole.loss - cut.loss):.1e}, derivatives "
            f"{_apart(whole.by_changes, cut.by_changes):.1e}"
        )

    def compare_with_mlx_lm(self) -> str:
        """Return how loss and derivatives differ from those of mlx-lm's layers, in words."""
        from mlx import nn
        from mlx.utils import tree_flatten
        from mlx_lm.tuner.utils import linear_to_lora_layers
        from mlx_lm.utils import load

        draws = np.random.default_rng(1)
        with closing(self._learner(self.lora, "mlx")) as learner:
            numbers = [
                {
                    name: mx.array(draws.normal(0, 0.02, one.shape).astype(np.float32))
                    for name, one in change.items()
                }
                for change in learner.initial()
            ]
            found = learner.gradients(self.records, numbers, 0)
        loaded: Any = load(str(self.checkpoint.folder.path))
        model = loaded[0]
        model.freeze()
        lora = self.lora
        wanted = {
            "rank": lora.rank,
            "scale": lora.scale,
            "dropout": 0.0,
            "keys": list(lora.targets),
        }
        linear_to_lora_layers(model, len(model.layers), wanted)
        model.set_dtype(mx.float32)
        for layer, change in zip(model.layers, numbers, strict=True):
            modules = dict(layer.named_modules())
            for target in lora.targets:
                modules[target].lora_a = change[f"{target}.lora_A"].T
                modules[target].lora_b = change[f"{target}.lora_B"].T

        def loss_of(own: Any) -> mx.array:
            total = mx.array(0.0)
            for one in self.records:
                logits = own(mx.array(list(one.tokens))[None])[0]
                places = [place for place, target in enumerate(one.targets) if target != NOT_ASKED]
                asked = mx.array([one.targets[place] for place in places])
                kept = logits[mx.array(places)].astype(mx.float32)
                total = total + nn.losses.cross_entropy(kept, asked, reduction="sum")
            return total / sum(one.asked for one in self.records)

        loss, tree = nn.value_and_grad(model, loss_of)(model)
        slopes: dict[str, mx.array] = dict(tree_flatten(tree))
        largest = max(_largest(array) for array in slopes.values())
        worst = 0.0
        for layer, change in enumerate(found.by_changes):
            for name, array in change.items():
                target, _, part = name.rpartition(".")
                theirs = slopes[f"model.layers.{layer}.{target}.{part.lower()}"].T
                worst = max(worst, _largest(array - theirs))
        difference = abs(found.loss - float(loss.item()))
        return f"loss {difference:.1e}, derivatives {worst / largest:.1e}"

    def _learner(
        self, lora: LoraSettings, kind: str, *, micro_tokens: int = 1 << 20
    ) -> Learner[Any]:
        """Open the model, all of it in memory."""
        load = LoadSettings(activations="float")
        memory = LayersInMemory(range(self.checkpoint.config.num_hidden_layers))
        opened = OpenModel(self.checkpoint, lora, memory, load)
        config = self.checkpoint.config
        if kind == "dpo":
            return PreferenceLearner(
                opened, config, lora, micro_tokens=micro_tokens, seed=0, beta=BETA
            )
        return AdapterLearner(opened, config, lora, micro_tokens=micro_tokens, seed=0)


def _changed(lora: LoraSettings, kind: str, layers: int) -> LoraSettings:
    """Return the settings of a kind."""
    first, last = lora.targets[0], lora.targets[-1]
    ranks = {matrix_name(0, first): lora.rank * 2, matrix_name(layers - 1, last): 2}
    kinds: dict[str, Callable[[], LoraSettings]] = {
        "rslora": lambda: replace(lora, rslora=True),
        "patterns": lambda: replace(lora, ranks=ranks, alphas={matrix_name(0, last): 64.0}),
        "layers": lambda: replace(lora, layers=max(1, layers // 2)),
        "dora": lambda: replace(lora, dora=True),
    }
    return kinds.get(kind, lambda: lora)()


def _in_peft(
    checkpoint: Checkpoint, lora: LoraSettings, numbers: Sequence[Change]
) -> tuple[Any, dict[str, Any]]:
    """Return PEFT's model with numbers, and what it learns, by our names with the layer."""
    import peft
    import torch

    layers = checkpoint.config.num_hidden_layers
    wanted = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=[target.rpartition(".")[2] for target in lora.targets],
        rank_pattern={f"layers.{name}": own for name, own in lora.ranks.items()},
        alpha_pattern={f"layers.{name}": own for name, own in lora.alphas.items()},
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        layers_to_transform=list(range(layers - lora.layers, layers)) if lora.layers else None,
        layers_pattern="layers" if lora.layers else None,
    )
    model = peft.get_peft_model(load_model(checkpoint, torch.float32, "cpu"), wanted)
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    parameters = {}
    for layer, change in enumerate(numbers):
        for name, array in change.items():
            one = named.pop(f"base_model.model.model.layers.{layer}.{name}.default.weight")
            if not name.endswith("magnitude_vector"):  # lengths begin as those of rows in both
                with torch.no_grad():
                    one.copy_(torch.from_numpy(np.array(array)))
            parameters[f"{layer}.{name}"] = one
    assert not named, "PEFT changes the same matrices"
    return model, parameters


def _likelihoods(model: Any, one: TrainingSequence) -> Any:
    """Return the log-probabilities of what is learned of a sequence."""
    import torch

    logits = model(input_ids=torch.tensor([list(one.tokens)])).logits[0]
    targets = torch.tensor(list(one.targets))
    asked = targets != NOT_ASKED
    logs = torch.log_softmax(logits[asked].float(), -1)
    return logs.gather(-1, targets[asked][:, None])[:, 0]


def _loss(model: Any, records: Sequence[TrainingSequence]) -> Any:
    total = sum(_likelihoods(model, one).double().sum() for one in records)
    return -total / sum(one.asked for one in records)


def _preference_loss(model: Any, pairs: Sequence[PreferencePair]) -> Any:
    """Return the loss as TRL has it, the reference being the model without its adapter."""
    import torch

    total: Any = 0.0
    for pair in pairs:
        own = [_likelihoods(model, one).sum() for one in (pair.chosen, pair.rejected)]
        with torch.no_grad(), model.disable_adapter():
            as_was = [_likelihoods(model, one).sum() for one in (pair.chosen, pair.rejected)]
        margin = BETA * ((own[0] - as_was[0]) - (own[1] - as_was[1]))
        total = total - torch.nn.functional.logsigmoid(margin)
    return total / len(pairs)


def _largest_difference(found: Sequence[Change], parameters: dict[str, Any]) -> float:
    """Return the largest difference of derivatives, as a share of the largest of them."""
    worst = largest = 0.0
    for layer, change in enumerate(found):
        for name, array in change.items():
            theirs = parameters[f"{layer}.{name}"].grad.numpy()
            worst = max(worst, _largest(np.array(array) - theirs))
            largest = max(largest, _largest(theirs))
    return worst / largest


def _largest(array: Any) -> float:
    """Return the largest absolute value of an array, MLX's or NumPy's."""
    return float(np.abs(np.array(array)).max())


def _apart(one: Sequence[Change], two: Sequence[Change]) -> float:
    pairs = [
        (change[name], other[name])
        for change, other in zip(one, two, strict=True)
        for name in change
    ]
    worst = max(_largest(a - b) for a, b in pairs)
    return worst / max(_largest(a) for a, _ in pairs)


def _records(tokenizer: Tokenizer, count: int, tokens: int) -> list[TrainingSequence]:
    """Return windows of our own text, each shorter than the one before; a third is not learned."""
    ids = tokenizer.encode(PASSAGES.read_text(encoding="utf-8"), add_special_tokens=False)
    found: list[TrainingSequence] = []
    for number in range(count):
        length = max(4, tokens - number * tokens // (2 * count))
        own = ids[number * tokens : number * tokens + length]
        if len(own) < length:
            own = ids[:length]
        targets = [*own[1:], NOT_ASKED]
        targets[: length // 3] = [NOT_ASKED] * (length // 3)
        found.append(TrainingSequence(token_ids(own), token_ids(targets), number))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Compare the kinds that are asked for."""
    parser = argparse.ArgumentParser(prog="beside_peft", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--records", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    asked = parser.parse_args(words)
    checkpoint = read_checkpoint(Path(locate(asked.model)))
    tokenizer = Tokenizer.from_folder(
        checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
    )
    study = Study(
        checkpoint,
        _records(tokenizer, asked.records, asked.tokens),
        LoraSettings(
            rank=asked.rank, alpha=2 * asked.rank, dropout=0.0, targets=targets_named("all")
        ),
        RateSettings(rate=asked.rate, warmup=0.0, clip=1.0),
        asked.steps,
    )
    for kind in asked.kinds.split(","):
        found = study.compare_with_mlx_lm() if kind == "mlx" else study.compare(kind)
        write_line(f"{kind}: {found}")


if __name__ == "__main__":
    main()
