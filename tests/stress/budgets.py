"""Run a 7B shape inside budgets of memory, each run held to its budget and 350 MB, and tell peaks.

python tests/stress/budgets.py FOLDER [--layers N] [--only TEXT] [--budgets 0.9GB,1.2GB,2GB]

FOLDER is where the random models are made (4 GB, once; they stay for the next time). Each row is a
process of its own in a control group, so that takes Linux and the right to make one. A row is right
where the most that the group's processes held is at most the budget and 350 MB, or where
``edgellm plan`` says beforehand that it does not fit and the run says the same, word for word,
before it has read any weights. The exit code says whether all rows are right.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.bench.worker.memory_cap import capped
from edgellm.converters.synthetic import synthesize
from edgellm.settings import parse_size
from edgellm.tokenizer import Tokenizer

SHAPE = "llama-2-7b"
HEADROOM = 350_000_000
"""Bytes for the interpreter and its libraries, on top of a budget."""

NEW_TOKENS = 6
WORDS = "once upon a time there was a little girl who liked to play in the park with her dog "
POLL_SECONDS = 0.02
REFUSED = 3
"""The exit code of a budget that is too small."""


@dataclass(frozen=True)
class Row:
    """A run of ``generate``.

    Attributes:
        name: in words.
        tokens: of a prompt.
        shared: options that ``plan`` takes too.
        own: options that only ``generate`` has.
        sequences: prompts side by side.
        twice: whether it runs once more, which finds what the first run has kept.
    """

    name: str
    tokens: int
    shared: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    sequences: int = 1
    twice: bool = False


ROWS = (
    Row("KV as computed", 4000),
    Row("KV 16 bits", 4000, ("--kv-bits", "16")),
    Row("KV 8 bits", 4000, ("--kv-bits", "8")),
    Row("KV 4 bits", 4000, ("--kv-bits", "4")),
    Row("KV 16 bits, 1,000 tokens", 1000, ("--kv-bits", "16")),
    Row("a draft, KV 4 bits", 4000, ("--kv-bits", "4", "--draft", "DRAFT")),
    Row("--cache, KV 4 bits", 4000, ("--kv-bits", "4"), ("--cache",), twice=True),
    Row("4 beams, KV 4 bits", 4000, ("--kv-bits", "4", "--beams", "4")),
    Row("4 beams, KV 4 bits, 500 tokens", 500, ("--kv-bits", "4", "--beams", "4")),
    Row("4 beams, KV 16 bits, 300 tokens", 300, ("--kv-bits", "16", "--beams", "4")),
    Row("8 sequences of 500, KV 4 bits", 500, ("--kv-bits", "4"), sequences=8),
    Row("8 sequences of 500, KV 16 bits", 500, ("--kv-bits", "16"), sequences=8),
    Row("8 sequences of 4,000, KV 4 bits", 4000, ("--kv-bits", "4"), sequences=8),
    Row("a turn of a chat, KV 4 bits", 4000, ("--kv-bits", "4"), ("--chat",)),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32, help="of the shape's 32")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--budgets", default="0.9GB,1.2GB,2GB")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--uncapped", action="store_true", help="measure, and hold to nothing")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    model, draft = make_models(asked.folder, asked.layers)
    say(f"{model.name}, {asked.layers} layers; MB; peak is of all processes together")
    form = "{:34} {:>6} {:>9} {:>5} {:>6} {:>6} {:>6} {:>6} {:>5} {:>6}  {}"
    heads = ("row", "budget", "planned", "exit", "peak", "anon", "over", "group", "OOM", "s", "")
    say(form.format(*heads))
    all_right = True
    for row in ROWS:
        if asked.only not in row.name:
            continue
        for budget in map(parse_size, asked.budgets.split(",")):
            for result in run(row, budget, model, draft, asked):
                all_right &= result.pop("right")
                say(form.format(*result.values()))
    sys.exit(not all_right)


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_models(folder, layers):
    """The shape with so many layers, and a draft of one layer and the same vocabulary."""
    whole = folder / SHAPE
    if not whole.exists():
        synthesize(SHAPE, whole)
    return tuple(first_layers(whole, folder / f"{SHAPE}-{count}", count) for count in (layers, 1))


def first_layers(whole, path, count):
    """A folder with a model's first layers, whose files are hard links to the model's own."""
    if path.exists():
        return path
    path.mkdir()
    config = json.loads((whole / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": count}))
    index = json.loads((whole / "model.safetensors.index.json").read_text())
    kept = {}
    for name, file in index["weight_map"].items():
        parts = name.split(".")
        if parts[1] != "layers" or int(parts[2]) < count:
            kept[name] = file
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": kept}))
    for name in {*kept.values(), "tokenizer.json", "tokenizer_config.json"}:
        (path / name).hardlink_to(whole / name)
    return path


def prompt_of(tokenizer, tokens, number):
    """A line of exactly so many tokens; each number's is another one."""
    text = f"{number} " + WORDS * (tokens // 10)
    prompt = tokenizer.decode(tokenizer.encode(text)[:tokens]).strip()
    while len(tokenizer.encode(prompt)) < tokens:
        prompt += "a"
    return prompt


def run(row, budget, model, draft, asked):
    """Ask the plan, then run; yield what a line of the table has."""
    config = json.loads((model / "config.json").read_text())
    tokenizer = Tokenizer.from_folder(model, vocab_size=config["vocab_size"])
    prompts = [prompt_of(tokenizer, row.tokens, number) for number in range(row.sequences)]
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    if "--chat" in row.own:
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        encoded = [tokenizer.apply_chat_template(turn) for turn in turns]
    longest = max(map(len, encoded)) + NEW_TOKENS
    file = asked.folder / f"prompts-{os.getpid()}.txt"
    file.write_text("\n".join(prompts))
    shared = [str(draft) if option == "DRAFT" else option for option in row.shared]
    shared += ["--memory", str(budget)]
    # as many sequences at once as fit
    for sequences in range(row.sequences, 0, -1):
        context = ["--context", str(min(config["max_position_embeddings"], sequences * longest))]
        plan = subprocess.run(
            [*edgellm("plan"), str(model), *shared, *context, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if plan.returncode == 0:
            break
    planned = "refused"
    if plan.returncode == 0:
        planned = megabytes(json.loads(plan.stdout)["total_bytes"])
    given = ["--prompt-file", str(file), "--batch", str(row.sequences)]
    stdin = None
    if row.sequences == 1:
        given, stdin = ["--prompt", "-"], prompts[0]
    command = [*edgellm("generate"), str(model), *shared, *given, *row.own]
    command += ["--max-tokens", str(NEW_TOKENS), "--threads", asked.threads, "--json"]
    limit = None if asked.uncapped else budget + HEADROOM
    for turn in range(1 + row.twice):
        done = measured(command, limit, stdin, asked.folder / "cache")
        peak, code = done["peak"], done["code"]
        over = peak - budget
        note = ""
        right = code == 0 and over <= HEADROOM and plan.returncode == 0
        if code:
            note = done["stderr"].strip().partition("\n")[0]
            right = code == plan.returncode == REFUSED and plan.stderr == done["stderr"]
        if not right:
            note = f"WRONG {note}"
        yield {
            "row": row.name + (" again" if turn else ""),
            "budget": megabytes(budget),
            "planned": planned,
            "code": code,
            "peak": megabytes(peak),
            "anonymous": megabytes(done["anonymous"]),
            "over": megabytes(over),
            "group": megabytes(done["group"]),
            "oom": done["oom"],
            "seconds": f"{done['seconds']:.0f}",
            "note": note,
            "right": right,
        }


def edgellm(command):
    return [sys.executable, "-m", "edgellm", command]


def megabytes(nbytes):
    return str(round(nbytes / 1e6))


def measured(command, limit, stdin, cache):
    """Run a command in a control group; return how it ended, and the most that it held."""
    peak = anonymous = group_peak = oom = 0
    begun = time.perf_counter()
    with capped(["nice", "-n", "5", *command], limit) as capped_command:
        process = subprocess.Popen(
            capped_command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        )
        if stdin is not None:
            process.stdin.write(stdin)
        process.stdin.close()
        while process.poll() is None:
            group = group_of(process.pid)
            held, without_files = held_bytes(processes(group, process.pid))
            peak, anonymous = max(peak, held), max(anonymous, without_files)
            if group is not None:
                group_peak = number(group / "memory.max_usage_in_bytes")
                oom = killed(group)
            time.sleep(POLL_SECONDS)
        with process:
            stdout, stderr = process.stdout.read(), process.stderr.read()
    for line in stdout.splitlines():
        # a document a prompt, or one of several lines: the process's own peak is in each
        _, _, value = line.partition('"peak_memory_bytes":')
        if value:
            peak = max(peak, int(value.split(",")[0].split("}")[0]))
    return {
        "code": process.returncode,
        "stderr": stderr,
        "peak": peak,
        "anonymous": anonymous,
        "group": group_peak,
        "oom": oom,
        "seconds": time.perf_counter() - begun,
    }


def group_of(pid):
    """The folder of a process's group of ours, of version 1; None where it has none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(",") and "edgellm-" in name:
            return Path("/sys/fs/cgroup/memory") / name.lstrip("/")
    return None


def processes(group, pid):
    """Processes of a group, or at least this one."""
    if group is None:
        return [pid]
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError:
        return [pid]


def held_bytes(pids):
    """Bytes that processes hold together: all of them, and those that belong to no file."""
    total = anonymous = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        sizes = {
            name: int(size.split()[0]) * 1024
            for name, _, size in (line.partition(":") for line in lines)
            if name in {"RssAnon", "RssFile", "RssShmem"}
        }
        total += sum(sizes.values())
        anonymous += sizes.get("RssAnon", 0)
    return total, anonymous


def number(path):
    try:
        return int(path.read_text())
    except OSError:
        return 0


def killed(group):
    try:
        lines = (group / "memory.oom_control").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


if __name__ == "__main__":
    main()
