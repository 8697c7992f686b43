"""Many processes that write one name at once, for each way to write: one whole file, clear errors.

    python tests/stress/writers.py [--writers 8] [--rounds 50] [WRITER ...]

In each round all processes begin together. Afterwards the file has to be what one of those wrote
that said it was done, whole; all others have to have said a clear error; nothing is left beside it.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from edgellm.errors import EdgeLLMError

BITS = (2, 3, 4, 5, 6, 8)


def file(root, number):
    """Write bytes that tell who wrote them."""
    from edgellm.files.atomic import write_file

    path = root / "out" / "file"
    write_file(path, (f"{number} of all\n".encode() * 1000 for _ in range(50)))


def records(suffix):
    """Make a writer of result files of a kind."""

    def write(root, number):
        from support.bench_records import speed

        from edgellm.bench.report.result_files import open_outputs

        with open_outputs([root / "out" / f"records.{suffix}"]) as (output,):
            for _ in range(3):
                output.add(speed(model=f"model {number}"))

    return write


def html(root, number):
    """Write a page of records."""
    from support.bench_records import speed

    from edgellm.bench.report.result_files import write_records

    write_records(root / "out" / "page.html", [speed(model=f"model {number}")] * 3)


def converted(root, number):
    """Convert a model, each process in another way."""
    from edgellm.converters import convert

    convert(root / "model", root / "out" / "made", bits=BITS[number % len(BITS)])


def replaced(root, number):
    """Convert a model over the one that is there."""
    from edgellm.converters import convert

    convert(root / "model", root / "out" / "made", bits=BITS[number % len(BITS)], force=True)


def exported(root, number):
    """Export one of several models to one file."""
    from edgellm.converters import export

    export(root / f"variant{number % 2}", root / "out" / "model.gguf", force=True)


def prompts(root, number):
    """Keep the same prompt's cache."""
    import mlx.core as mx

    from edgellm.kv_cache.cache import KVCache
    from edgellm.kv_cache.kv_format import KVFormat
    from edgellm.prompt_cache.disk_cache import PromptCache

    caches = [KVCache(KVFormat(2, 8, mx.float16), capacity=1024) for _ in range(2)]
    for cache in caches:
        cache.update(mx.ones((1, 2, 100, 8)), mx.ones((1, 2, 100, 8)))
    PromptCache(root / "out", lambda: "model").save(list(range(100)), caches)


def kernels(root, number):
    """Compile the same kernel."""
    from edgellm.kernels.code_cache import CodeCache
    from edgellm.kernels.codegen.isa import host_isas

    CodeCache(host_isas()[0], folder=root / "out" / "edgellm" / "kernels").kernel("swiglu")


def chats(root, number):
    """Save a conversation of its own under a common name."""
    from edgellm.chat import Chat
    from edgellm.open_llm import load

    llm = OPENED.get("llm") or OPENED.setdefault("llm", load(root / "model"))
    chat = Chat(llm)
    chat.messages = [{"role": "user", "content": f"{number} " * 20_000}]
    chat.save(root / "out" / "talk.json")


OPENED = {}
WRITERS = {
    "file": file,
    **{f"bench --output {suffix}": records(suffix) for suffix in ("json", "jsonl", "csv", "md")},
    "bench report": html,
    "/save, --continue": chats,
    "export --force": exported,
    "convert": converted,
    "convert --force": replaced,
    "prompt cache": prompts,
    "compiled kernels": kernels,
}
OF_MODELS = {"/save, --continue", "export --force", "convert", "convert --force"}


def work(name, root, number, barrier, answers):
    """Write in each round, and answer what became of it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    while True:
        barrier.wait()
        if (root / "end").exists():
            return
        try:
            WRITERS[name](root, number)
            said = "done"
        except EdgeLLMError as error:
            said = f"error: {error.message}"
        except BaseException as error:
            said = f"traceback: {error!r}"
        answers.put((number, said))


def contents(folder):
    """Return the bytes of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def prepare(root):
    """Put there what the writers of models read."""
    from support.tiny import CONFIGS, write_model

    from edgellm.converters import convert

    write_model(root / "model", CONFIGS["llama-2"] | {"num_hidden_layers": 2})
    for number, bits in enumerate((4, 8)):
        convert(root / "model", root / f"variant{number}", bits=bits)


def expected(name, root, writers):
    """Return what each writer leaves when it is alone."""
    alone = []
    for number in range(writers):
        (root / "out").mkdir()
        WRITERS[name](root, number)
        alone.append(contents(root / "out"))
        shutil.rmtree(root / "out")
    return alone


def tried(name, root, *, writers, rounds):
    """Let writers write at once, so many rounds; return counts of what they said, and faults."""
    alone = expected(name, root, writers)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(writers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(name, root, number, barrier, answers))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    counts = {"done": 0, "error": 0}
    faults = []
    for turn in range(rounds):
        (root / "out").mkdir()
        barrier.wait()
        said = dict(answers.get(timeout=120) for _ in range(writers))
        done = [number for number, text in said.items() if text == "done"]
        counts["done"] += len(done)
        counts["error"] += sum(text.startswith("error") for text in said.values())
        faults += [f"round {turn}: {text}" for text in said.values() if "traceback" in text]
        faults += [
            f"round {turn}: {text}"
            for text in said.values()
            if text.startswith("error") and "being written" not in text and "exists" not in text
        ]
        if contents(root / "out") not in [alone[number] for number in done]:
            names = sorted(contents(root / "out"))
            faults.append(f"round {turn}: no writer's that was done: {names}, {said}")
        shutil.rmtree(root / "out")
    (root / "end").touch()
    barrier.wait()
    for process in processes:
        process.join()
    (root / "end").unlink()
    return counts, faults


def main():
    """Try all writers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("names", nargs="*", metavar="WRITER", help=", ".join(WRITERS))
    options = parser.parse_args()
    failed = 0
    sys.stdout.write(
        "| writer | writers x rounds | done | clear error | faults |\n|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in options.names or WRITERS:
            if name in OF_MODELS and not (root / "model").exists():
                prepare(root)
            counts, faults = tried(name, root, writers=options.writers, rounds=options.rounds)
            failed += len(faults)
            size = f"{options.writers} x {options.rounds}"
            row = [name, size, str(counts["done"]), str(counts["error"]), str(len(faults))]
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.write("".join(f"  {fault[:300]}\n" for fault in faults[:3]))
            sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
