"""The fuzzers' frame: cases by number, each within its time, all within some memory."""

import argparse
import random
import resource
import sys
import time
from collections import Counter

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of what ``ru_maxrss`` counts."""


def measured(case, numbers, *, seconds, memory):
    """Run ``case(random)`` for each number, and count what came of them.

    A case that takes more processor time, or cases that take more memory together, are an
    AssertionError; what a first call imports is not the input's doing, so the caller runs some
    cases before.
    """
    results = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    for number in numbers:
        begun = time.process_time()
        results[case(random.Random(number))] += 1
        took = time.process_time() - begun
        assert took < seconds, f"case {number} took {took:.1f} s"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT - before
        assert grown < memory, f"memory grew by {grown >> 20} MiB until case {number}"
    return results


def show(fuzz, about, *, count):
    """The command line of a fuzzer: print what came of its cases."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for result, times in sorted(fuzz(arguments.count, arguments.seed).items()):
        sys.stdout.write(f"{times:8} {result}\n")
    sys.stdout.write(
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT >> 20:8} MiB at the most\n"
    )
