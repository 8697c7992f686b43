"""Throw damaged input at every door: our errors alone, in bounded time and memory.

python tests/fuzz_doors.py --count 100000 --jobs 2 --results /tmp/results
python tests/fuzz_doors.py --count 5000 --door gguf-structure --seed 7
python tests/fuzz_doors.py --again tests/regressions/gguf-structure/*.json
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.doors import DOORS
from fuzz.harness import load_case, run_case
from fuzz.workers import chunks_of, run_door, table, work


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="cases of all doors together")
    parser.add_argument("--door", action="append", choices=list(DOORS), help="these doors alone")
    parser.add_argument("--seed", type=int, default=0, help="the first case's number")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--results", type=Path, help="a folder; a run that was stopped goes on")
    parser.add_argument("--again", nargs="+", type=Path, help="open cases that were written down")
    parser.add_argument("--table", action="store_true", help="only add the results up")
    parser.add_argument("--worker", choices=list(DOORS), help=argparse.SUPPRESS)
    parser.add_argument("ranges", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        ranges = [tuple(map(int, text.split("-"))) for text in arguments.ranges]
        work(arguments.worker, ranges, arguments.results)
        return 0
    if arguments.again:
        return again(arguments.again)
    results = arguments.results or Path(tempfile.mkdtemp(prefix="edgellm-fuzz-results-"))
    results.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        names = arguments.door or list(DOORS)
        shares = sum(DOORS[name].share for name in names)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(
                pool.map(
                    lambda name: run_door(
                        name,
                        chunks_of(arguments.count * DOORS[name].share // shares, arguments.seed),
                        results,
                    ),
                    names,
                )
            )
    text, clean = table(results)
    sys.stdout.write(f"{text}\nresults and cases with faults: {results}\n")
    return 0 if clean else 1


def again(paths):
    """Open cases that were written down, and say what comes of each."""
    clean = True
    for path in paths:
        name, files = load_case(path)
        with tempfile.TemporaryDirectory(prefix="edgellm-fuzz-") as folder:
            outcomes, faults, refusal = run_case(DOORS[name](Path(folder) / "case"), files)
        said = f": {refusal.message}" if refusal else ""
        sys.stdout.write(f"{path.name}: {outcomes[0]}{said}\n")
        for fault, about in faults.items():
            clean = False
            sys.stdout.write(f"  {fault}: {about}\n")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
