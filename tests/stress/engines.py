"""Holds an engine to flat memory while threads submit and cancel sequences at random.

Run by hand: python tests/stress/engines.py --sequences 20000
"""

import argparse
import random
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.traffic import Traffic

import edgellm
from edgellm.device.machine import process_memory

MEMORY_MARGIN = 48 << 20
"""Bytes that memory may differ by: what allocators keep, which does not grow with time."""


def stress(llm, sequences, *, threads=4, check=200, seed=0):
    """Run so many sequences, submitted by threads; hold ``check`` of them to what they say alone.

    Returns the process's memory after a tenth of them and at the end.
    """
    memory = []
    with llm.engine(max_queue=32, at_once=12) as engine:
        traffics = [Traffic(engine, random.Random(seed + n)) for n in range(threads)]
        going = threading.Event()
        going.set()

        def come_and_go(traffic):
            while going.is_set() and sum(len(one.prompts) for one in traffics) < sequences:
                traffic.submit()
                if traffic.draw.random() < 0.2:
                    traffic.cancel()
                if engine.waiting > 16:
                    engine.wait(0.002)

        found = Traffic(engine, random.Random(seed))
        workers = [threading.Thread(target=come_and_go, args=[one]) for one in traffics]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers) or not engine.idle:
                found.take(engine.step(wait=0.05))
                found.check_memory(llm.prefix_cache)
                if not memory and engine.stats.sequences >= sequences // 10:
                    memory.append(process_memory())
        finally:
            going.clear()
            for worker in workers:
                worker.join()
        for traffic in traffics:
            found.prompts |= traffic.prompts
        checked = set(random.Random(seed).sample(sorted(found.prompts), check))
        answers = {}

        def alone(prompt, settings):
            key = repr((prompt, settings))
            if key not in answers:
                answers[key] = [token.id for token in llm.generate(prompt, **settings).tokens]
            return answers[key]

        found.check_end(llm.prefix_cache, alone, only=checked)
        memory.append(process_memory())
    return memory


def main():
    """Run until an assertion fails or all have ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=20000)
    parser.add_argument("--model", default="stories")
    arguments = parser.parse_args()
    with edgellm.load(arguments.model, memory="500MB") as llm:
        begin, end = stress(llm, arguments.sequences)
    told = f"{arguments.sequences} sequences; memory {begin >> 20} MiB, in the end {end >> 20} MiB"
    sys.stdout.write(told + "\n")
    assert end - begin < MEMORY_MARGIN


if __name__ == "__main__":
    main()
