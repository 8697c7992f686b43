"""Run the programs that ``cpu_kernels`` compares, each in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import orders, report_errors, stdout_channel
from edgellm.errors import BackendError

FIRST_TOKEN = 300
"""Prompts are ids from here on: behind the special tokens of every vocabulary."""

Run = Callable[[str, int], float]
"""A test (``pp``, a prompt, or ``tg``, token by token) of so many tokens; returns seconds."""


def edgellm_runner(folder: str, threads: int) -> Run:
    """Return what runs edgellm itself, on a folder that is loaded here."""
    import mlx.core as mx

    from edgellm.checkpoint.checkpoint import read_checkpoint
    from edgellm.generation.prefill import prefill
    from edgellm.kv_cache.cache import stored
    from edgellm.open_llm import load
    from edgellm.runtime.loader import make_caches
    from edgellm.settings import LoadSettings

    llm = load(folder, threads=threads, memory=64 << 30)
    model, settings = llm.model, LoadSettings()
    checkpoint = read_checkpoint(Path(folder))

    def run(test: str, tokens: int) -> float:
        caches = make_caches(checkpoint, capacity=tokens + 8, window=None, reserve=tokens + 8)
        ids = [FIRST_TOKEN + place for place in range(tokens)]
        if test == "tg":
            prefill(model, ids[:1], caches, prefill_chunk=settings.prefill_chunk)
        begun = time.perf_counter()
        if test == "pp":
            prefill(model, ids, caches, prefill_chunk=settings.prefill_chunk)
        else:
            for token in ids:
                hidden = model.hidden([mx.array([[token]])], [caches])[0]
                mx.eval(model.logits(hidden[:, -1]), *stored(caches))
        return time.perf_counter() - begun

    return run


def mlx_lm_runner(folder: str, threads: int) -> Run:
    """Return what runs mlx-lm on the same folder, in float32 (16 bits are slower on a CPU)."""
    del threads
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)

    def run(test: str, tokens: int) -> float:
        cache = make_prompt_cache(model)
        ids = mx.array([[FIRST_TOKEN + place for place in range(tokens)]])
        if test == "tg":
            mx.eval(model(ids[:, :1], cache=cache))
        begun = time.perf_counter()
        if test == "pp":
            mx.eval(model(ids, cache=cache)[:, -1])
        else:
            for place in range(tokens):
                mx.eval(model(ids[:, place : place + 1], cache=cache))
        return time.perf_counter() - begun

    return run


def llama_cpp_runner(file: str, threads: int, *, extra_buffers: bool = True) -> Run:
    """Return what runs llama.cpp through llama-cpp-python.

    Extra buffers are its repacked weights (those for AMX among them).
    """
    import llama_cpp

    default_params = llama_cpp.llama_cpp.llama_model_default_params

    def params_without_extra_buffers() -> Any:
        params = default_params()
        params.use_extra_bufts = False
        return params

    # llama-cpp-python has no argument for it
    if not extra_buffers:
        llama_cpp.llama_cpp.llama_model_default_params = params_without_extra_buffers
    model = llama_cpp.Llama(
        file,
        n_threads=threads,
        n_threads_batch=threads,
        n_ctx=2048,
        n_batch=512,
        n_ubatch=512,
        verbose=False,
    )

    def run(test: str, tokens: int) -> float:
        model.reset()
        ids = [FIRST_TOKEN + place for place in range(tokens)]
        if test == "tg":
            model.eval(ids[:1])
        begun = time.perf_counter()
        if test == "pp":
            model.eval(ids)
        else:
            for token in ids:
                model.eval([token])
        return time.perf_counter() - begun

    return run


def llama_cpp_plain_runner(file: str, threads: int) -> Run:
    """Return what runs llama.cpp with its weights as they lie in the file."""
    return llama_cpp_runner(file, threads, extra_buffers=False)


RUNNERS: Mapping[str, Callable[[str, int], Run]] = {
    "edgellm": edgellm_runner,
    "mlx-lm": mlx_lm_runner,
    "llama.cpp": llama_cpp_runner,
    "llama.cpp plain": llama_cpp_plain_runner,
}


class Runner:
    """A process that holds one model and does tests when it is told to.

    Raises:
        BackendError: the model cannot be loaded, or not run.
    """

    def __init__(self, backend: str, file: Path, threads: int) -> None:
        program = [sys.executable, "-m", "edgellm.bench.studies.cpu_runners"]
        arguments = [backend, str(file), str(threads)]
        self._worker = WorkerProcess(command=[*program, *arguments], timeout=None)
        try:
            self.run("pp", 8)
        except BackendError:
            self.close()
            raise

    def run(self, test: str, tokens: int) -> float:
        """Return the seconds of a test. Raises BackendError where it fails."""
        self._worker.send({"test": test, "tokens": tokens})
        seconds: float = self._worker.receive()["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        self._worker.kill()


def serve(backend: str, file: str, threads: int) -> None:
    """Load a model, and do the tests that standard input orders."""
    send = stdout_channel()
    with report_errors(send):
        run = RUNNERS[backend](file, threads)
        for order in orders():
            send({"seconds": run(order["test"], order["tokens"])})


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
