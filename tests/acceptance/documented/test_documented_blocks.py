"""Everything that README.md and docs/ show is run, in an environment without optional packages.

Models are small stand-ins at the names that a block has, and repositories come from a stand-in for
the Hub. A command that would take minutes gets options of its own that make it measure less.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.documented_blocks import PAGES, blocks_of
from support.memory_cap import can_cap
from support.networks import can_make_networks
from support.openai_server import openai_server
from support.paths import ROOT
from support.stand_in_files import MAKERS, REPOSITORIES, StandIns
from support.stand_in_hub import serving_hub
from support.without import hiding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language != "text"]
IN_BLOCKS = {
    command.text for block in BLOCKS if block.language != "span" for command in block.commands
}
RUNS = [
    pytest.param(block, id=block.title)
    for block in BLOCKS
    if (block.page, block.language) != ("python.md", "python")  # those are tests of their own
    # a command that a sentence repeats
    and not (block.language == "span" and block.commands[0].text in IN_BLOCKS)
]

OPTIONAL = {
    "torch": "torch",
    "triton": "torch",
    "llama_cpp": "llama-cpp-python",
    "accelerate": "accelerate",
    "airllm": "AirLLM",
    "peft": "peft",
}
"""Packages that a plain install does not bring, and the need that they meet.

They are hidden from commands that do not say that they need them.
"""

NEEDS = {
    "torch": lambda: find_spec("torch") is not None,
    "llama-cpp-python": lambda: find_spec("llama_cpp") is not None,
    "accelerate": lambda: find_spec("accelerate") is not None,
    "peft": lambda: find_spec("peft") is not None,
    "AirLLM": lambda: find_spec("airllm") is not None,
    "locust": lambda: find_spec("locust") is not None,
    "Flower": lambda: find_spec("flwr") is not None,
    "an NVIDIA GPU": lambda: shutil.which("nvidia-smi") is not None,
    "control groups": can_cap,
    "network namespaces": can_make_networks,
    "rpc-server": lambda: shutil.which("rpc-server") is not None,
    "the network": lambda: False,
    "other machines": lambda: False,  # tests/cli/cluster_commands starts them
    "a terminal of its own": lambda: False,  # the example's own tests start it
}
"""What a page may say that a command needs, and whether it is here."""

LESS = [
    (r"edgellm (chat|generate)", "--max-tokens 8"),
    (r"edgellm rm", "--yes"),
    (r"edgellm eval (?!compare)", "--limit 3 --max-tokens 4"),
    (r"edgellm train", "--max-tokens 32"),
    (r"edgellm bench queries", "--max-tokens 4"),
    (r"edgellm bench paging", "--samples 1"),
    (r"edgellm bench ablate", "--tokens 2 --repetitions 1"),
    (r"edgellm bench parity", "--tokens 64 --new-tokens 4"),
    (r"edgellm bench train", "--steps 2 --turns 1 --tokens 16"),
    (r"edgellm bench serve", "--users 1,2 --requests 2"),
    (r"edgellm launch", "--url http://localhost:8080"),
    (r"edgellm bench (?!disk|compare|report|rate)", "--repetitions 1 --max-seconds 0.01"),
    (r"python -m edgellm.bench.studies.speculation", "--tokens 8 --passes 4"),
    (r"python -m edgellm.bench.studies.batching", "--steps 2 --rounds 1"),
    (r"python -m edgellm.bench.studies.clusters.(two_processes|gathers)", "--tokens 8 --rounds 1"),
    (r"python -m edgellm.bench.studies.federation", "--records 8 --held-out 2 --rounds 1"),
    (r"python -m edgellm.bench.studies.cpu_kernels", "--rounds 1 --decode 2 --prompts 8"),
    (r"python -m edgellm.bench.studies.peers_in_a_budget", "--rounds 1"),
    (r"python -m edgellm.bench.evaluation.perplexity", "--limit 100"),
    (r"python tests/real_world.py", "--only Granite"),
    (r"make ", "--dry-run"),
    (r"python -m pip install", "--dry-run --no-deps --no-index --no-build-isolation"),
]
"""Options that are put behind a command that begins so: the first that suits.

They make it measure less, ask nobody, or change nothing outside its folder.
"""

SMALLER = [
    (r"synth llama-2-7b", "synth tiny-llama"),
    (r"--layers 16-31", "--layers 2-3"),
    (r"--shape tinyllama-1.1b", "--shape tiny-llama"),
    (r"(bench ablate .*) --memory \S+", r"\1"),  # half of the model, which is small
    (r"--bits 4,8,16 --prompt-tokens 128,512", "--bits 4,16 --prompt-tokens 8,16"),
    (r"--depth 0,4096 --batch 1,4", "--depth 0,64 --batch 1,2"),
    (r"--threads 1,2,4(,8)?", "--threads 1,2"),
    (r"^pip ", "python -m pip "),
    # a server runs until it is told to end
    (r"^edgellm serve (.*)", r"timeout --signal INT 6 edgellm serve \1 --port 0; test $? = 124"),
]
BENCH_SHAPES = ("llama-2-7b", "tinyllama-1.1b", "qwen2.5-0.5b")
"""Shapes that the bench makes once and keeps: small ones lie in its cache already."""

IN_THE_CHECKOUT = re.compile(r"(make|pip install|python -m pip|python (tests|scripts)/)")
MAKES_A_FILE = re.compile(
    r"edgellm (?:convert|export|synth|train \S+) \S+ (\S+)(?!\S)(?!.* --resume)"
)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory, stand_ins):
    """The variables of a plain install whose home is empty, and whose Hub is on this machine."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    made = home / ".cache" / "edgellm" / "bench"
    made.mkdir(parents=True, mode=0o700)
    for shape in BENCH_SHAPES:
        stand_ins.copy("./llama-3-8b", made)
        (made / "llama-3-8b").rename(made / f"{shape}-4bit")
    repositories = {name: stand_ins.repository(name) for name in REPOSITORIES}
    with serving_hub(repositories) as hub:
        yield {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "HOME": str(home),
            "HF_ENDPOINT": hub.address,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "COLUMNS": "80",
        }


@pytest.fixture
def run(environment, server):
    """A function that runs a command as it is typed; who reads standard input finds a line."""

    def run(words, place, needs):
        hidden = [package for package, need in OPTIONAL.items() if need not in needs]
        variables = environment | hiding(*hidden)
        words[-1] = words[-1].replace("http://localhost:8080", server)
        if IN_THE_CHECKOUT.match(words[-1]):
            place = ROOT
        done = subprocess.run(
            words,
            cwd=place,
            env=variables,
            input="Once upon a time\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        said = f"$ {words[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr, said
        assert "does not provide the extra" not in done.stderr, said

    return run


@pytest.fixture(scope="session")
def server():
    """The URL of a server that speaks as OpenAI's does."""
    with openai_server() as (url, _):
        yield url


def test_needs_are_said_in_words_that_are_known():
    for block in BLOCKS:
        for needs in (block.needs, *(command.needs for command in block.commands)):
            assert needs <= NEEDS.keys(), block.title


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_in_fences(page):
    assert not re.search(r"^    (\$|edgellm|python|pip|make) ", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("block", RUNS)
def test_a_block_runs(block, tmp_path, stand_ins, run, record_property):
    if lacking := unmet(block.needs):
        pytest.skip(f"{block.title} needs {lacking}")
    put_stand_ins(block, tmp_path, stand_ins)
    begun, used = time.perf_counter(), processor_seconds()
    if block.language == "python":
        run([sys.executable, "-c", block.text], tmp_path, block.needs)
    ran = 0
    for command in block.commands:
        if unmet(command.needs):
            continue
        if made := MAKES_A_FILE.search(command.text):
            remove(tmp_path / made.group(1))
        run(["sh", "-c", with_less(command.text)], tmp_path, block.needs | command.needs)
        ran += 1
    seconds, used = time.perf_counter() - begun, processor_seconds() - used
    shown = next(iter([command.text for command in block.commands] or block.text.splitlines()))
    record_property(
        "documented", f"{seconds:5.1f} s, {used:5.1f} s of processor  {block.title}: {shown}"
    )
    if block.commands and not ran:
        pytest.skip(f"{block.title} needs {unmet(block.commands[0].needs)}")


def processor_seconds():
    """Return the processor time of all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def unmet(needs):
    """Return what is not here, in words."""
    return " and ".join(sorted(name for name in needs if not NEEDS[name]()))


def put_stand_ins(block, place, stand_ins):
    """Put there what the commands of a block read, and does not come from one before."""
    made = set()
    for text in [block.text, *(command.text for command in block.commands)]:
        words = re.findall(r"[^\s\"'`]+", text)
        for word in words:
            if word in MAKERS and word not in made:
                stand_ins.copy(word, place)
        if match := MAKES_A_FILE.search(text):
            made.add(match.group(1))


def with_less(text):
    """Return a command that measures less, of smaller shapes."""
    for usual, smaller in SMALLER:
        text = re.sub(usual, smaller, text)
    parts = []
    for part in text.split(" && "):
        options = next((options for begin, options in LESS if re.match(begin, part)), "")
        parts.append(f"{part} {options}".strip())
    return " && ".join(parts)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
