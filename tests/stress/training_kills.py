"""Kill a training run at random moments and go on with it: it ends in the same bytes.

python tests/stress/training_kills.py --count 40 --seed 0
python tests/stress/training_kills.py --count 20 --full

A run goes to its end undisturbed. Then runs with the same options are stopped once to three times
each, by SIGKILL, and one time in four by SIGINT or SIGTERM, which let them save. The disk is made
slow, so that many moments are amid a save. Each goes on with --resume until it ends: adapter and
state are those of the undisturbed run, byte for byte.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.tiny import LLAMA, write_model

from stress.kills import SLOW_DISK, Operation, running, show

TRAIN = (
    SLOW_DISK
    + """
from edgellm.__main__ import main
import edgellm.training.run.train
sys.argv = ["edgellm", "train", *sys.argv[3:]]
print("begun", flush=True)
sys.exit(main())
"""
)

WORDS = ("dog", "cat", "ball", "sun", "sea", "tree", "bird", "boat", "moon", "star", "fish")
STATE = "training.safetensors"
ADAPTER = ("adapter_model.safetensors", "adapter_config.json", STATE)
MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", STATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="runs that learn every number")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counts = Counter()
    with tempfile.TemporaryDirectory(prefix="edgellm-kills-") as folder:
        trials = [
            Trial(Path(folder).resolve() / str(every), every, full=options.full)
            for every in (1, 2, 3)
        ]
        number = 0
        while counts["kills"] < options.count:
            kills = min(options.count - counts["kills"], rng.randint(1, 3))
            for said in trials[number % len(trials)].stopped_often(kills, rng):
                counts[said.partition(":")[0]] += 1
                if said.startswith("fault"):
                    show(said)
            number += 1
    faults = counts.pop("fault", 0)
    show(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    show(f"{faults} faults")
    return int(faults > 0)


class Trial:
    """Runs that save every so many steps, and what one leaves that nobody disturbs."""

    def __init__(self, root, every, *, full):
        self.place = root / "place"
        self.place.mkdir(parents=True)
        self.model = write_model(root / "model", LLAMA)
        self.data = root / "data.jsonl"
        self.data.write_text("".join(json.dumps(record(word)) + "\n" for word in WORDS))
        self.every, self.full = every, full
        self.files = MODEL if full else ADAPTER
        with running(self.training(), self.place) as process:
            begun = time.perf_counter()
            said = process.communicate()[1]
        assert process.returncode == 0, said
        self.duration = time.perf_counter() - begun
        self.expected = self.contents()

    def training(self):
        """The command, which goes on where there is a run."""
        words = [self.model, self.data, self.place / "out", "--valid", self.data]
        words += ["--epochs", "3", "--batch", "2", "--save-every", self.every]
        words += ["--max-tokens", "64", "--memory", "1GB", "--threads", "1"]
        words += ["--full"] * self.full
        if (self.place / "out" / STATE).exists():
            words.append("--resume")
        return Operation(TRAIN, list(map(str, words)))

    def stopped_often(self, kills, rng):
        """Stop a run some times, and let it end; yields what is counted, and every fault."""
        shutil.rmtree(self.place)
        self.place.mkdir()
        for _ in range(kills):
            sent = signal.SIGKILL
            if rng.random() < 0.25:
                sent = rng.choice([signal.SIGINT, signal.SIGTERM])
            with running(self.training(), self.place) as process:
                time.sleep(rng.uniform(0, self.duration))
                if process.poll() is None:
                    yield "while it worked"
                process.send_signal(sent)
                said = process.communicate()[1]
            if "Traceback" in said:
                yield f"fault: {said}"
            yield from ("kills", sent.name)
        with running(self.training(), self.place) as process:
            said = process.communicate()[1]
        if process.returncode:
            yield f"fault: ended with {process.returncode}: {said[-500:]}"
        found = self.contents()
        for name in self.files:
            if found.get(name) != self.expected[name]:
                yield f"fault: other bytes in {name}"

    def contents(self):
        """The files that a run is to leave, by name."""
        out = self.place / "out"
        return {name: (out / name).read_bytes() for name in self.files if (out / name).exists()}


def record(word):
    """A record of Alpaca's form."""
    return {"instruction": f"Say {word} and nothing else.", "output": f"{word} {word}"}


if __name__ == "__main__":
    sys.exit(main())
