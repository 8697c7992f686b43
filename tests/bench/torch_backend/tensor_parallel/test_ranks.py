"""Ranks compute what one does, and end together."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from edgellm.bench.backends.registry import RuntimeSettings, open_runtime
from edgellm.bench.machine.rates import Rates
from edgellm.bench.speed.speed import Speed
from edgellm.bench.speed.workload import Workload
from edgellm.converters import convert
from edgellm.errors import BackendError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")

from support.paths import GOLDEN

from edgellm.bench.torch_backend.tensor_parallel.ranks import Ranks

# of several test processes, each with as many as there are cores, none gets on
torch.set_num_threads(1)

KINDS = {
    2: ("llama-3.2", "llama-3", "llama-biases", "qwen3", "mistral-window"),
    4: ("llama-3.2", "llama-3"),
}
"""By the number of ranks: 4 of them share two key/value heads, and 2 share one."""

ONE = RuntimeSettings(threads=1, dtype="float32")
TWO = replace(ONE, tensor_parallel=2)

RANK = """
import json, os, sys
import numpy as np
import torch.distributed as dist
from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.torch_backend.runtime import CPURuntime
from edgellm.bench.torch_backend.shard import Shard

rank, size, place, golden, *folders = sys.argv[1:]
os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
shard = Shard(int(rank), int(size))
met = {"init_method": f"file://{place}", "rank": shard.rank, "world_size": shard.size}
dist.init_process_group("gloo", **met)
for folder in folders:
    with open(f"{golden}/{os.path.basename(folder)}.json", encoding="utf-8") as file:
        known = json.load(file)
    runtime = CPURuntime(folder, RuntimeSettings(dtype="float32", threads=1), shard)
    assert runtime.greedy(known["prompt"], 3) == known["greedy"][:3]
    found = runtime.logits(known["prompt"])
    differences = [
        float(np.abs(found[int(position), :: known["stride"]] - numbers).max())
        for position, numbers in known["logits"].items()
    ]
    print(max(differences))
dist.destroy_process_group()
"""
"""Compute some folders, and print how far logits are from those that transformers gave."""


@pytest.mark.parametrize("size", KINDS)
def test_logits_and_greedy_text_of_ranks_are_those_that_transformers_gave(
    size, tiny_folder, tmp_path
):
    folders = []
    for kind in KINDS[size]:
        known = json.loads((GOLDEN / f"{kind}.json").read_text(encoding="utf-8"))
        folders.append(tmp_path / kind)
        folders[-1].symlink_to(tiny_folder(kind, seed=known["seed"]))
    paths = map(str, (tmp_path / "meeting", GOLDEN, *folders))
    command = [sys.executable, "-c", RANK]
    others = list(paths)
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(size), *others],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [rank.communicate(timeout=100) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert [rank.returncode for rank in ranks] == [0] * size, said
    # every rank has the same logits, of all words
    assert len({out for out, _ in said}) == 1
    assert max(map(float, said[0][0].split())) < 1e-4


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_folder):
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2"), made, bits=4, group_size=32)
    return made


def is_there(pid):
    """Whether a process runs, or has ended and nobody has asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def prefill_for(ranks, seconds):
    """Have ranks compute a short prompt again and again."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        ranks.prefill(np.array([[7, 3, 99]]))


def failure_of(ranks, happens):
    """Return the error of ranks of which something happens to the second in mid-step."""
    ranks.begin(batch=1, capacity=4000)
    ranks.prefill(np.array([[7, 3, 99]]))
    pids = ranks.pids
    later = threading.Timer(0.3, os.kill, (pids[1], happens))
    later.start()
    with pytest.raises(BackendError) as caught:
        prefill_for(ranks, seconds=60)
    later.join()
    assert not any(map(is_there, pids))
    return caught.value.message


def test_quantized_matrices_are_cut_and_a_rank_that_is_gone_ends_all(quantized):
    prompt = np.array([[7, 3, 99, 12], [45, 6, 200, 31]])
    one = open_runtime("cpu", str(quantized), ONE)
    ranks = Ranks("cpu", str(quantized), TWO, patience=3.0)
    try:
        assert ranks.arithmetic == f"{one.arithmetic}, tensor parallel 2"
        assert ranks.weight_bytes_per_token >= one.weight_bytes_per_token
        expected = one.logits(prompt[0].tolist())
        found = ranks.logits(prompt[0].tolist())
        assert 0 < np.abs(found - expected).max() < 1e-4  # sums in another order
        for runtime in (one, ranks):
            runtime.begin(batch=2, capacity=8)
            runtime.prefill(prompt)
            runtime.decode(3)
        assert ranks.last_tokens() == one.last_tokens()
        assert failure_of(ranks, signal.SIGKILL).startswith("rank 1 of 2: the system killed it")
        with pytest.raises(BackendError, match="the ranks have ended"):
            ranks.decode(1)
        # the next test starts them again
        said = failure_of(ranks, signal.SIGSTOP)
        assert said.startswith("rank 1 of 2 did not come to where all meet")
    finally:
        ranks.close()


PARENT = """
import os, sys, time
import numpy as np
from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.torch_backend.tensor_parallel.ranks import Ranks
ranks = Ranks("cpu", sys.argv[1], RuntimeSettings(threads=1, tensor_parallel=2))
print(*ranks.pids, flush=True)
ranks.begin(batch=1, capacity=100000)
while True:
    ranks.prefill(np.array([[7, 3, 99]]))
"""


def test_no_rank_outlives_the_process_that_started_them(quantized):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(quantized)], stdout=subprocess.PIPE, text=True
    )
    pids = list(map(int, parent.stdout.readline().split()))
    parent.kill()
    parent.communicate()
    assert len(pids) == 2
    ends = time.monotonic() + 20
    while any(map(is_there, pids)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(is_there, pids))


def test_a_record_says_how_many_ranks_there_were(quantized):
    workload = Workload(
        models=(str(quantized),),
        backends=("cpu",),
        prompt_tokens=(),
        gen_tokens=(2,),
        repetitions=1,
        threads=(1,),
        tensor_parallel=(2, 3),
    )
    two, three = Speed(workload, measure_rates=lambda threads: Rates(1e10, 1e11)).records()
    assert (two.tensor_parallel, two.error) == (2, None)
    assert two.tokens_per_second > 0
    assert three.tensor_parallel == 3
    assert "4 heads with 2 key/value heads cannot be divided among 3 ranks" in three.error
