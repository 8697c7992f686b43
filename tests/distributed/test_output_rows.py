"""Machines that have rows of the output matrix give what one gives, bit for bit."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from support.clusters import (
    answers,
    answers_of_one,
    members,
    output_by_rows,
    parts_in,
    require_equal,
    rows_budget,
)
from support.paged import CONTEXT, PROMPT
from support.tiny import VOCABULARY

import edgellm
from edgellm.checkpoint.buffer import PAGE
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed import row_choice
from edgellm.distributed.forecast import forecast_rows
from edgellm.distributed.gathered import gather
from edgellm.distributed.parts.open_rows import plan_rows
from edgellm.distributed.parts.rows import share_output, share_rows
from edgellm.distributed.remote.gathered_pass import GatheredHead, GatheredPass
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.distributed.row_choice import choose_shares, gather_seconds
from edgellm.errors import ReadError
from edgellm.models.cpu.linear import CpuLinear
from edgellm.settings import LoadSettings

SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
SHAPE |= {"max_position_embeddings": 1024}
LOAD = {"context": CONTEXT, "threads": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_folder):
    """Models of four key/value heads: with an output matrix, a tied one, one that is larger."""
    made = tmp_path_factory.mktemp("made")
    for name, kind in (("own", "llama-3.1"), ("tied", "llama-3.2")):
        whole = tiny_folder(kind, config=SHAPE, seed=1)
        convert(whole, made / name, bits=4)
        assert (read_checkpoint(whole).lm_head is None) == (name == "tied")
    wide = tiny_folder("llama-3.1", config=SHAPE | {"hidden_size": 256}, seed=1)
    return {"own": made / "own", "tied": made / "tied", "wide": wide}


@contextmanager
def by_rows(folder, place, memories, memory="500MB", held=None, **load):
    """A model of which each machine has rows, those of the output matrix among them."""
    with (
        output_by_rows(),
        members(folder, place, memories, held=held) as hosts,
        edgellm.load(folder, memory=memory, machines=hosts, split="rows", **LOAD, **load) as llm,
    ):
        assert isinstance(llm.model.head, GatheredHead)
        yield llm


@pytest.mark.parametrize(
    ("matrix", "activations", "memories"),
    [
        ("own", "int8", ["500MB"]),
        ("tied", "int8", ["200MB", "300MB"]),
        ("own", "float", ["300MB", "200MB"]),
        ("wide", "float", ["500MB"] * 3),
    ],
)
def test_logits_of_rows_equal_those_of_one(folders, tmp_path, matrix, activations, memories):
    folder = folders[matrix]
    one = answers_of_one(folder, **LOAD, activations=activations)
    with by_rows(folder, tmp_path, memories, activations=activations) as llm:
        assert isinstance(llm.model.whole_pass, GatheredPass)
        require_equal(one, answers(llm))


def test_paged_rows_have_rows_of_the_output_matrix(tiny_folder, tmp_path):
    folder = tiny_folder("llama-3.1", config=SHAPE | {"num_hidden_layers": 8}, seed=1)
    own, other = (rows_budget(folder, place, [1, 1], 5, **LOAD) for place in range(2))
    one = answers_of_one(folder, **LOAD)
    with by_rows(folder, tmp_path, [other], memory=own) as llm:
        assert llm.plan.streamed
        require_equal(one, answers(llm))


def test_only_logits_that_are_needed_are_computed(folders, tmp_path, monkeypatch):
    asked, logits = [], GatheredLayers.logits

    def counted(layers, hidden):
        asked.append(len(hidden))
        return logits(layers, hidden)

    monkeypatch.setattr(GatheredLayers, "logits", counted)
    with by_rows(folders["own"], tmp_path, ["500MB"]) as llm:
        llm.generate(PROMPT * 6, max_tokens=4)
        assert asked == [1]  # of the prompt; those after it are gathered in the passes of layers
        llm.logits(PROMPT * 6)
        assert sum(asked) == 1 + len(PROMPT * 6)


def test_after_a_product_that_fails_texts_are_whole(folders, tmp_path, monkeypatch):
    rows, failing = CpuLinear.rows, []

    def fails(linear, inputs):
        if failing and linear.out_features < VOCABULARY and failing.pop():
            raise ReadError("it has failed")
        return rows(linear, inputs)

    with by_rows(folders["own"], tmp_path, ["500MB"] * 2) as llm:
        whole = llm.generate(PROMPT, max_tokens=5).text
        monkeypatch.setattr(CpuLinear, "rows", fails)
        for passes in (0, 2):
            failing[:] = [True] + [False] * (3 * passes)
            with pytest.raises(edgellm.EdgeLLMError, match="it has failed"):
                llm.generate(PROMPT, max_tokens=5)
            assert llm.generate(PROMPT, max_tokens=5).text == whole


def test_plans_count_rows_of_the_output_matrix(folders):
    for matrix in ("wide", "tied"):
        checkpoint = read_checkpoint(folders[matrix])
        config, settings = checkpoint.config, LoadSettings(memory="500MB", **LOAD)
        shares, output = share_rows(config, [2, 1, 1]), share_output(config, [2, 1, 1])
        assert [stop for _, stop in output] == [160, 240, VOCABULARY]
        plans, without = (
            [
                plan_rows(checkpoint, share, settings, layers_only=place > 0, output=own)
                for place, (share, own) in enumerate(zip(shares, rows, strict=True))
            ]
            for rows in (output, [None] * 3)
        )
        nbytes = checkpoint.output_matrix.nbytes
        more = [
            (one.total_bytes - other.total_bytes, one.weight_bytes_per_token)
            for one, other in zip(plans, without, strict=True)
        ]
        # pages of buffers: of rows, and of the norm
        assert all(0 <= extra - nbytes / 4 <= 5 * PAGE for extra, _ in more[1:])
        if matrix == "wide":
            assert abs(more[0][0] + nbytes / 2) <= PAGE
        else:  # the embedding is there as a whole
            assert more[0][0] == 0
        for (_, token), other, part in zip(more, without, (-0.5, 0.25, 0.25), strict=True):
            assert abs(token - other.weight_bytes_per_token - part * nbytes) <= 5 * PAGE


@contextmanager
def gathered(folder, place, held=None):
    with members(folder, place, ["500MB"], held=held) as hosts, ExitStack() as stack:
        settings = LoadSettings(memory="500MB", machines=hosts, split="rows", **LOAD)
        yield gather(read_checkpoint(folder), settings, stack)


def rates(*, logits, weights=1e6):
    """Speeds as if they had been measured."""
    return SimpleNamespace(trips=[0.0, 1e-6], weights=[weights] * 2, logits=[0.0, logits])


def test_rows_are_taken_where_a_token_then_takes_less_time(folders, tmp_path, monkeypatch):
    with gathered(folders["wide"], tmp_path) as machines:
        monkeypatch.setattr(row_choice, "SLOWEST_WEIGHTS", 1e6)
        near, far = (choose_shares(machines, rates(logits=seconds)) for seconds in (1e-6, 1.0))
        assert near.output == [(0, 160), (160, VOCABULARY)]
        assert "rows of it on each machine: logits are gathered in 0.1 ms" in near.reason
        assert far.output is None
        assert "of arithmetic, and 500 ms go into gathers" in far.reason
        # a machine that is the slowest with its layers alone gets no more
        slow = rates(logits=1e-6)
        slow.weights = [1e6, 1e5]
        assert "no less to do" in choose_shares(machines, slow).reason
        found = forecast_rows(machines, rates(logits=1e-6))
        assert found.as_dict()["output_matrix"] == near.reason
        gathers = gather_seconds(machines, slow, near.shares)
        assert found.link_seconds == gathers + near.output_seconds


def test_attended_features_are_on_all_where_that_takes_less_time(folders, tmp_path, monkeypatch):
    with gathered(folders["wide"], tmp_path) as machines:
        slow, fast = (
            choose_shares(machines, rates(logits=1.0, weights=weights)) for weights in (1e6, 1e12)
        )
        assert [share.attended for share in fast.shares] == [(0, 256)] * 2
        assert [share.attended for share in slow.shares] == [(0, 128), (128, 256)]
        assert [share.hidden for share in fast.shares] == [(0, 128), (128, 256)]
        layers = len(machines.checkpoint.layers)
        four, three = (
            gather_seconds(machines, rates(logits=1.0), found.shares) for found in (slow, fast)
        )
        assert (four, three) == pytest.approx((4 * layers * 3.05e-5, 3 * layers * 3.05e-5))
        # where even the slowest arithmetic takes less, nothing is measured
        monkeypatch.setattr(row_choice, "SLOWEST_WEIGHTS", 1e12)
        assert choose_shares(machines, SimpleNamespace()).shares == fast.shares


def test_a_machine_too_small_for_the_whole_matrix_has_rows_of_it(folders, tmp_path):
    folder = folders["wide"]
    least = rows_budget(folder, 0, [1, 1], 0, **LOAD)
    one = answers_of_one(folder, **LOAD)
    load = {"memory": least - PAGE, "split": "rows"} | LOAD
    with members(folder, tmp_path, [least - PAGE]) as hosts:
        with edgellm.load(folder, machines=hosts, **load) as llm:
            assert isinstance(llm.model.head, GatheredHead)
            require_equal(one, answers(llm))
        load["memory"] = load["memory"] // 2
        with pytest.raises(edgellm.MemoryBudgetError, match="norm and head"):
            edgellm.load(folder, machines=hosts, **load)


def test_nothing_is_measured_for_a_small_matrix(folders, tmp_path):
    with gathered(folders["own"], tmp_path) as machines:
        chosen = choose_shares(machines, None)
    assert chosen.output is None
    assert "multiplied sooner than logits gathered, which takes 0.1 ms or more" in chosen.reason


@pytest.mark.parametrize("matrix", ["own", "tied"])
def test_machines_are_sent_their_rows_of_it(folders, tmp_path, matrix):
    folder = folders[matrix]
    with edgellm.load(folder, memory="500MB", **LOAD) as llm:
        one = np.array(llm.logits(PROMPT)), llm.generate(PROMPT, max_tokens=8).text
    for _ in range(2):  # they are there the second time
        with by_rows(
            folder, tmp_path, ["300MB", "200MB"], held=parts_in(tmp_path / "parts")
        ) as llm:
            assert np.array_equal(np.array(llm.logits(PROMPT)), one[0])
            assert llm.generate(PROMPT, max_tokens=8).text == one[1]
    files = {file.name[:27] for file in (tmp_path / "parts").glob("*/*/model-outer-*")}
    assert len(files) == 2
