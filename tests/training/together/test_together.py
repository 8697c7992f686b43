"""Steps that machines share are those of one machine, and runs go on bit for bit."""

import dataclasses
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import pytest
from support.clusters import members, parts_in
from support.task_files import write_rows
from support.tiny import LLAMA, write_model
from support.training import LORA, in_four_bits, moved, numbers_of, torch_loss

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.errors import ConfigError, MachineError, MemoryBudgetError
from edgellm.settings import LoadSettings
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.learners.adapter_memory import COPIES
from edgellm.training.learners.adapter_task import AdapterTask
from edgellm.training.low_rank import initial_changes
from edgellm.training.run.order import step_items
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run
from edgellm.training.start_adapter import Start
from edgellm.training.together.session import TrainingSession
from edgellm.training.together.share_memory import MEMBER_COPIES, plan_share
from edgellm.training.together.together import warn_of_other_arithmetic

WORDS = ("dog", "cat", "ball and a bat", "sun", "sea", "a rather long answer about it", "moon")
ROWS = [{"prompt": f"Say {word}.", "completion": word} for word in WORDS]
PAIRS = [{"prompt": f"Say {word}.", "chosen": word, "rejected": "no"} for word in WORDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


def request(folder, data, out, *, hosts=None, shares=None, memory="1GB", lora=LORA, **settings):
    return TrainRequest(
        model=str(folder),
        data=data,
        folder=out,
        settings=TrainSettings(lora=lora, batch=4, seed=3, **settings),
        load=LoadSettings(activations="float", memory=memory, threads=1, machines=hosts),
        shares=shares,
    )


@contextmanager
def machines(folder, place, budgets=("1GB",), make_session=TrainingSession, held=None):
    with members(folder, place, budgets, make_session=make_session, held=held) as hosts:
        yield hosts


def steps_of(asked):
    """What a run's steps are, and the numbers that they end with."""
    with open_run(asked) as run:
        steps = [step for step in run.run() if hasattr(step, "norm")]
        return steps, numbers_of(run)


def near(one, two):
    return max(float(mx.abs(a - b).max().item()) for a, b in zip(one, two, strict=True))


def rows_file(folder, rows=ROWS):
    path = folder / "data.jsonl"
    write_rows(path, rows)
    return path


@pytest.mark.parametrize("kind", ["dora", "dpo"])
def test_two_machines_take_the_steps_of_one(folder, tmp_path, kind):
    settings = {"stage": kind} if kind == "dpo" else {}
    lora = dataclasses.replace(LORA, dora=kind == "dora", dropout=0.1)
    data = rows_file(tmp_path, PAIRS if kind == "dpo" else ROWS)
    asked = request(folder, data, tmp_path / "one", lora=lora, steps=3, **settings)
    if kind == "dpo":  # the reference goes to the other machine, too
        numbers = moved(initial_changes(read_checkpoint(folder).config, lora, 5), 0.1)
        (tmp_path / "start").mkdir()
        write_adapter(tmp_path / "start", numbers, lora, base="")
        asked = dataclasses.replace(asked, start=Start(tmp_path / "start"))
    one, expected = steps_of(asked)
    with machines(folder, tmp_path / "hosts") as hosts:
        load = dataclasses.replace(asked.load, machines=hosts)
        two, found = steps_of(dataclasses.replace(asked, folder=tmp_path / "two", load=load))
    assert "Other machines" in (tmp_path / "two" / "training.html").read_text()
    for own, other in zip(one, two, strict=True):
        assert other.loss == pytest.approx(own.loss, abs=1e-5)
        assert other.norm == pytest.approx(own.norm, rel=1e-5)
        assert other.asked == own.asked
        assert other.figures == pytest.approx(own.figures, abs=1e-5)
        assert len(other.shares) == 2
        assert all(other.shares.values())
    assert near(expected, found) < 1e-5


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_shares_of_unequal_tokens_give_the_derivatives_of_torch(tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "sixteen", bits=16)
    data = rows_file(tmp_path)
    with machines(tmp_path / "sixteen", tmp_path / "hosts", ["1GB", "1GB"]) as hosts:
        asked = request(tmp_path / "sixteen", data, tmp_path / "out", hosts=hosts, shares=(5, 2, 1))
        with open_run(asked) as run:
            items = step_items(run.data.sequences, 0, batch=6, seed=0)
            numbers = moved(run.trainer.numbers, 0.05)
            found = run._learner.gradients(items, numbers, 0)
            apart = run._learner.shares.of(items)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    names = [target.rpartition(".")[2] for target in LORA.targets]
    model = peft.get_peft_model(
        plain, peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names)
    )
    parameters = dict(model.named_parameters())
    keys = {
        (layer, name): f"base_model.model.model.layers.{layer}.{name}.default.weight"
        for layer, change in enumerate(numbers)
        for name in change
    }
    for (layer, name), key in keys.items():
        parameters[key].data.copy_(torch.tensor(np.array(numbers[layer][name])))
    loss = torch_loss(model, items)
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), abs=1e-5)
    theirs = {place: parameters[key].grad.numpy() for place, key in keys.items()}
    largest = max(np.abs(one).max() for one in theirs.values())
    for (layer, name), expected in theirs.items():
        ours = np.array(found.by_changes[layer][name])
        assert np.abs(ours - expected).max() <= 1e-5 * largest
    # the plain mean over machines, which ends where each has as many tokens, is another one
    means = [torch_loss(model, share).item() for share in apart]
    assert abs(sum(means) / len(means) - found.loss) > 1e-3


def least_budget(folder, lengths, *, machines, copies):
    """The smallest budget of a machine's share: no layer stays in memory."""
    task = AdapterTask(
        lora=LORA,
        beta=None,
        seed=0,
        micro_tokens=1024,
        longest=lengths[0],
        step_tokens=sum(lengths[:4]),
    )
    low, high = 0, 1 << 30
    while high - low > 1:
        middle = (low + high) // 2
        try:
            plan_share(read_checkpoint(folder), task, middle, machines=machines, copies=copies)
        except MemoryBudgetError:
            low = middle
        else:
            high = middle
    return high


def test_unequal_shares_of_three_machines_that_read_their_layers(folder, tmp_path):
    data = rows_file(tmp_path)
    asked = request(folder, data, tmp_path / "one")
    one, expected = steps_of(asked)
    with open_run(dataclasses.replace(asked, resume=True)) as run:
        lengths = sorted((each.length for each in run.data.sequences), reverse=True)
        held = run.data.nbytes
    own, other = (
        least_budget(folder, lengths, machines=3, copies=copies)
        for copies in (COPIES + 2, MEMBER_COPIES)
    )
    own += held  # all records are here
    sent = []
    # which have not got the model
    with machines(
        None, tmp_path / "hosts", [other, other], held=parts_in(tmp_path / "parts")
    ) as hosts:
        asked = request(folder, data, tmp_path / "two", hosts=hosts, shares=(3, 1, 1), memory=own)
        with open_run(asked, sending=lambda *step: sent.append(step)) as run:
            assert len({name for name, done, total in sent if done == total}) == 2
            assert sum("at most 4 read a step" in note for note in run.notes) == 2
            assert run.memory.reads == 4
            two = [step for step in run.run() if hasattr(step, "norm")]
            found = numbers_of(run)
    for own, other in zip(one, two, strict=True):
        assert other.loss == pytest.approx(own.loss, abs=1e-5)
        assert other.norm == pytest.approx(own.norm, rel=1e-5)
        assert max(other.shares, key=other.shares.get) == "here"
    assert near(expected, found) < 1e-5


def test_a_run_that_was_stopped_ends_in_the_same_bits(folder, tmp_path):
    data = rows_file(tmp_path)
    with machines(folder, tmp_path / "hosts") as hosts:
        whole = request(folder, data, tmp_path / "whole", hosts=hosts, shares=(2, 1))
        steps, expected = steps_of(whole)
        stopped = dataclasses.replace(whole, folder=tmp_path / "stopped")
        with open_run(stopped) as run:
            next(step for step in run.run() if getattr(step, "step", 0) == 3)
            run.save()
        rest, found = steps_of(dataclasses.replace(stopped, resume=True))
    assert [step.loss for step in rest] == [step.loss for step in steps[3:]]
    assert near(found, expected) == 0


def test_losses_of_other_records_are_shared_and_numbers_sent_once(folder, tmp_path):
    sent = []

    class Watched(TrainingSession):
        def _answer(self, head, body):
            if head["ask"] in ("losses", "derivatives"):
                sent.append((head["ask"], body.nbytes - head["records"]))
            return super()._answer(head, body)

    data = rows_file(tmp_path)
    asked = dataclasses.replace(request(folder, data, tmp_path / "one", steps=2), valid=data)
    with open_run(asked) as run:
        list(run.run())
        expected = run.trainer.history
    with machines(folder, tmp_path / "hosts", make_session=Watched) as hosts:
        load = dataclasses.replace(asked.load, machines=hosts)
        with open_run(dataclasses.replace(asked, folder=tmp_path / "two", load=load)) as run:
            list(run.run())
            found = run.trainer.history
            nbytes = 4 * sum(array.size for array in numbers_of(run))
    losses = [("losses", nbytes), ("losses", 0)]
    assert sent == [*losses, *[("derivatives", nbytes)] * 2, *losses]
    for one, two in zip(expected, found, strict=True):
        assert two["valid"] == pytest.approx(one["valid"], abs=1e-5)


def test_it_goes_on_with_other_machines_and_with_none(folder, tmp_path):
    data = rows_file(tmp_path)
    _, expected = steps_of(request(folder, data, tmp_path / "whole"))
    stopped = request(folder, data, tmp_path / "stopped")
    with machines(folder, tmp_path / "hosts") as hosts:
        together = dataclasses.replace(
            stopped, load=dataclasses.replace(stopped.load, machines=hosts)
        )
        with open_run(together) as run:
            next(step for step in run.run() if getattr(step, "step", 0) == 4)
            run.save()
    with pytest.raises(MachineError, match="cannot be reached") as raised:
        steps_of(dataclasses.replace(together, resume=True))
    assert raised.value.hint
    _, found = steps_of(dataclasses.replace(stopped, resume=True))
    assert near(found, expected) < 1e-5


def test_what_is_refused(folder, tmp_path):
    data = rows_file(tmp_path)
    with machines(folder, tmp_path / "hosts") as hosts:
        for asked, words in (
            (request(folder, data, tmp_path / "a", hosts=hosts, shares=(1, 1, 1)), "3 shares"),
            (request(folder, data, tmp_path / "a", shares=(1, 1)), "--shares are those of several"),
            (request(folder, data, tmp_path / "a", hosts=hosts, method="full"), "codes"),
        ):
            with pytest.raises(ConfigError, match=words) as raised:
                steps_of(asked)
            assert raised.value.hint


def test_machines_that_round_otherwise_are_said():
    own = {"numbers": "float32", "kernels": "int8", "instructions": "avx2"}
    with pytest.warns(UserWarning, match="machine second computes with numbers of type bfloat16"):
        warn_of_other_arithmetic("second", own, {**own, "numbers": "bfloat16"})
    warn_of_other_arithmetic("second", own, {**own, "instructions": "avx512"})
