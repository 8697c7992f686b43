"""Tasks of lm-evaluation-harness by name, or by the categories of LLaMA's own evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.harness.task_index import harness_folder, index_of, names_in
from edgellm.bench.worker.protocol import foreign_error
from edgellm.errors import BackendError, ConfigError, EdgeLLMError, ReadError

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "common-sense": (
        *("boolq", "piqa", "social_iqa", "hellaswag", "winogrande"),
        *("arc_easy", "arc_challenge", "openbookqa"),
    ),
    "closed-book": ("nq_open", "triviaqa"),
    "reading-comprehension": ("race",),
    "mathematics": ("gsm8k", "hendrycks_math"),
    "code": ("humaneval", "mbpp"),
    "multitask": ("mmlu",),
    "bias-and-truthfulness": (
        *("truthfulqa_mc1", "truthfulqa_mc2"),
        *("crows_pairs_english", "winogender_all"),
    ),
}
"""The categories that LLaMA was evaluated in, as far as the harness has their tasks.

Its RealToxicityPrompts needs a service on the network, and is left out.
"""


def tasks_of(names: Iterable[str]) -> list[str]:
    """Return the tasks that are meant by names of tasks and of categories."""
    tasks: list[str] = []
    for name in names:
        tasks.extend(CATEGORIES.get(name, (name,)))
    return list(dict.fromkeys(tasks))


class TaskFinder:
    """The tasks of the harness, and those in a folder of one's own.

    Args:
        names: the tasks that will be asked for.
        folder: a folder with tasks as YAML files; None: the harness' own alone.
        run_code: whether tasks may run code that the model has written.

    Raises:
        ConfigError: there is no such task or folder, or it runs code.
    """

    def __init__(
        self, names: Sequence[str], *, folder: Path | None = None, run_code: bool = False
    ) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{folder} is no folder", hint="name one with tasks as YAML files")
        self._manager: Any = index_of(names, folder)
        for name in names:
            self._require(name, run_code=run_code)

    def load(self, name: str) -> Mapping[str, Any]:
        """Return a task, or the tasks of a group, by their names; their data is read.

        Raises:
            ReadError: the data is not on this machine.
            BackendError: the harness cannot make the task.
        """
        try:
            tasks: Mapping[str, Any] = self._manager.load([name])["tasks"]
        except EdgeLLMError:
            raise
        except Exception as error:  # of the harness, of data sets, of a task's own code
            raise self._load_error(name, error) from error
        return tasks

    def _require(self, name: str, *, run_code: bool) -> None:
        index = self._manager.task_index
        if name not in index:
            known = [*CATEGORIES, *self._manager.all_tasks, *names_in(harness_folder())]
            near = get_close_matches(name, known, 3) or list(CATEGORIES)
            raise ConfigError(
                f"lm-evaluation-harness has no task {name!r}", hint=f"near it: {', '.join(near)}"
            )
        config = index[name].cfg or {}
        if config.get("unsafe_code") and not run_code:
            raise ConfigError(
                f"the task {name} runs code that the model has written",
                hint="allow it with --harness-run-code, where it can do no harm",
            )

    def _load_error(self, name: str, error: Exception) -> EdgeLLMError:
        config = self._manager.task_index[name].cfg or {}
        files = (config.get("dataset_kwargs") or {}).get("data_files")
        path = config.get("dataset_path")
        words = foreign_error(error).message
        if files and isinstance(error, FileNotFoundError):
            return ReadError(
                f"the data of the task {name} is not there: {words}",
                hint="correct data_files in the task's file; paths start in the current folder",
            )
        if config.get("unsafe_code") and _is_about_data(error):
            return ReadError(
                f"the data or the metric of the task {name} is not on this machine",
                hint="both come from the Hub: run it once with --harness-download",
            )
        if path and _is_about_data(error):
            return ReadError(
                f"the data of the task {name} ({path}) is not on this machine",
                hint="run it once with --harness-download where there is a network, or copy"
                f" {_cache_folder(path)} from a machine that has it",
            )
        return BackendError(
            f"lm-evaluation-harness could not make the task {name}: {words}",
            hint="its YAML file, or a library that it needs",
        )


def _cache_folder(dataset: str) -> str:
    """Return where a data set of the Hub lies once it was fetched."""
    from datasets.config import HF_DATASETS_CACHE

    return str(Path(HF_DATASETS_CACHE) / dataset.replace("/", "___"))


def _is_about_data(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that data could not be had."""
    while error is not None:
        origin = type(error).__module__.split(".")[0]
        if origin in {"datasets", "huggingface_hub", "requests", "httpx"}:
            return True
        if isinstance(error, ConnectionError | FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False
