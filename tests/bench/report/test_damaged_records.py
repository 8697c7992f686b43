"""Damaged result files by the thousand: each is read, or refused in our own error.

python tests/bench/report/test_damaged_records.py --count 30000
"""

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from support.bench_records import COMMON, evaluation, query, speed, training

from edgellm.bench.comparison.compare import as_document, compare, environments
from edgellm.bench.records.kinds import (
    AblationRecord,
    DiskRecord,
    PagingRecord,
    ParityRecord,
)
from edgellm.bench.report.html_report import as_html
from edgellm.bench.report.result_files import read_some_records
from edgellm.bench.result_commands.compare import describe
from edgellm.bench.tables.columns import speed_columns
from edgellm.bench.tables.evaluation_picture import evaluation_picture
from edgellm.bench.tables.evaluation_runs import compared_runs
from edgellm.bench.tables.evaluation_sentences import evaluation_lines
from edgellm.bench.tables.evaluation_tables import evaluation_tables
from edgellm.bench.tables.markdown_tables import as_markdown
from edgellm.bench.tables.text_tables import as_csv, as_json, as_table
from edgellm.errors import EdgeLLMError

RECORDS = [
    speed(threads=1, step_seconds=(0.1, 0.2), floor_seconds=0.5, energy_joules=(3.0, 4.0, 5.0)),
    speed(threads=2, weight_bytes_per_token=10**9, read_gbps=20.0, flops=1e9, bits=4),
    speed(threads=2, test="pp128", tokens=128, batch=2, first_token_seconds=(1.0,)),
    speed(seconds=(), test="load", error="it is not installed"),
    query(question="Why?", answer="So.", score=7, scored_by="person", model_bytes=10**9, threads=1),
    query(question="Why?", answer="So.", score=8, model_bytes=10**9, threads=4, number=1),
    DiskRecord(
        **COMMON,
        test="disk",
        seconds=(1.0, 2.0),
        threads=4,
        chunk_bytes=1 << 20,
        read_bytes=1 << 30,
        direct_reads=True,
    ),
    training(),
    training(test="LoRA, paged", pinned_layers=0, seconds=(1.0, 2.0, 3.0), step_tokens=(512,) * 3),
    PagingRecord(
        **COMMON,
        test="paging",
        tokens=2,
        seconds=(1.0, 2.0),
        memory_bytes=10**9,
        layers=32,
        pinned_layers=3,
        bytes_per_token=10**9,
        raw_gbps=(1.0, 2.0, 3.0),
        resident_seconds=0.1,
    ),
    AblationRecord(
        **COMMON, test="ablation", variant="no cache", without="cache", tokens=4, seconds=(1.0,)
    ),
    ParityRecord(
        **COMMON, test="parity", bits=4, kl=0.1, text="a", reference_text="b", text_equal=False
    ),
    ParityRecord(**COMMON, test="parity", bits=8, kl=0.01, perplexity=5.0, reference_perplexity=4),
    evaluation([1, 0] * 8),
    evaluation(
        [1] * 4,
        task="texts",
        task_kind="text",
        headline="bits_per_byte",
        metrics={"bits_per_byte": 1.0, "kl": 0.5},
        columns={
            "nll": (3.0,) * 4,
            "bytes": (4.0,) * 4,
            "kl_sum": (2.0, 2.0, 1.0, 2.0),
            "kl_tokens": (4.0,) * 4,
        },
    ),
    evaluation([0, 0] * 8, bits=4, model_bytes=4_000_000, shots=0, shot_text="a"),
]
NUMBERS = [0, -1, 1, 2, 7, 0.5, 1e-320, 1e-15, 1e-9, 1e9, 1e12, 1e15, 1e18, 1e308, 2**63, 10**400]
OTHERS = [None, True, False, "", "8", "x\x1b]0;t\x07", "\ud800", [], [1], {}, {"a": [1]}, -0.0]
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "[" * 300, "9" * 5000, "\\ud800", "}", ",", "\x00"]
SECONDS = 5.0
"""Processor time of a case, imports of the first among it."""

LARGE = 300
"""Times that a list is repeated, where a case makes it long."""


def places(value, parents=()):
    """Every place in a JSON value, as the keys that lead there."""
    yield parents
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from places(item, (*parents, key))


def damage(document, rng):
    """Change a value, drop it, double it, or swap it with another one."""
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        inner_places = [place for place in places(document) if place]
        if not inner_places:
            break
        *parents, key = rng.choice(inner_places)
        inner = document
        for parent in parents:
            inner = inner[parent]
        match rng.randrange(7):
            case 0 | 1:
                inner[key] = rng.choice(NUMBERS)
            case 2:
                inner[key] = copy.deepcopy(rng.choice(OTHERS))
            case 3:
                del inner[key]
            case 4 if isinstance(inner[key], list):
                inner[key] = inner[key] * rng.choice([2, LARGE])
            case 5 if isinstance(inner, dict):
                inner[rng.choice(["kind", "schema", "records", "x", *inner])] = inner[key]
            case _:
                inner[key] = copy.deepcopy(rng.choice(RECORDS).get(str(key)))
    return document


def damaged_file(rng):
    """The bytes of a result file in which something is wrong, and its suffix."""
    chosen = rng.sample(RECORDS, rng.randint(1, len(RECORDS)))
    document = damage(json.loads(as_json(chosen)), rng)
    suffix = ".json"
    text = json.dumps(document)
    if rng.random() < 0.4 and isinstance(document.get("records"), list):
        suffix = ".jsonl"
        schema = {"schema": document.get("schema")}
        lines = [
            json.dumps(schema | one if isinstance(one, dict) else one)
            for one in document["records"]
        ]
        text = "\n".join(lines) + rng.choice(["\n", ""])
    if rng.random() < 0.2:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(RAW) + text[at + rng.randrange(3) :]
    data = text.encode(errors="replace")
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    return data, suffix


def fuzz(count, seed):
    """Read so many damaged files, and make everything of those that are read."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.json"
        whole.write_text(as_json(RECORDS))

        def case(rng):
            data, suffix = damaged_file(rng)
            path = Path(folder) / f"damaged{suffix}"
            path.write_bytes(data)
            try:
                files = [read_some_records(whole), read_some_records(path)]
            except EdgeLLMError as error:
                clear = error.message.startswith(str(path)) and error.hint
                return type(error).__name__ if clear else f"unclear: {error}"
            if rng.random() < 0.5:
                files.reverse()
            matches = compare(files)
            json.dumps(as_document(matches, ["a", "b"]), allow_nan=False)
            describe(matches, environments(files), ["a", "b"]).encode()
            records = [record for of_file in files for record in of_file]
            page = as_html(records)
            for text in (page, as_csv(records), as_markdown(records), as_json(records)):
                text.encode()
            drawing = page.partition("<h2>Where it was measured")[0]
            assert not any(f'"{word}' in drawing for word in ("nan", "inf", "-inf"))
            as_table(records, speed_columns(records)).encode()
            tasks = compared_runs(records)
            evaluation_tables(tasks, width=80).encode()
            evaluation_picture(tasks, width=80).encode()
            "".join(evaluation_lines(tasks, width=80)).encode()
            return "read"

        results = Counter()
        for number in range(seed, seed + count):
            begun = time.process_time()
            results[case(random.Random(number))] += 1
            took = time.process_time() - begun
            assert took < SECONDS, f"case {number} took {took:.1f} s"
        return results


def test_damaged_result_files_end_in_our_error():
    results = fuzz(150, 1_000_000)
    assert results["read"] > 5
    assert results["FormatError"] > 50
    assert results.keys() == {"read", "FormatError"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.stdout.write(f"{dict(fuzz(options.count, options.seed))}\n")
