"""lm-evaluation-harness itself: imported when it is asked for, and the class that it knows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from types import new_class
from typing import Any

from edgellm.bench.evaluation.harness.adapter import Adapter, Question
from edgellm.errors import BackendError
from edgellm.llm import LLM
from edgellm.open_llm import load

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
"""By these names the libraries for data sets are told to use only what is on the disk."""


def require_library() -> None:
    """Raise BackendError where lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise BackendError(
            "lm-evaluation-harness is not installed",
            hint="install it, in edgellm's checkout: pip install '.[harness]'",
        )


def work_offline() -> None:
    """Have data sets come from the disk alone. It counts where lm_eval is imported later."""
    os.environ.update(OFFLINE)


def allow_code() -> None:
    """Let the metric of tasks of programming run code, which it refuses without being told."""
    os.environ["HF_ALLOW_CODE_EVAL"] = "1"


@contextmanager
def quieted() -> Iterator[None]:
    """Have the harness and its data sets show no progress of their own in a ``with`` block.

    Warnings of the harness about tasks are lost; what matters of them is counted in records.
    """
    from datasets import disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
        logger.setLevel(level)


class HarnessModel:
    """A model of edgellm as the harness asks it, with the options of ``edgellm.load``.

    What is not here is that of the harness' own base class, which ``model_class`` puts behind it.

    Args:
        pretrained: a folder, a Hub id, the name of a bundled model, or a loaded model.
        adapter: what answers the requests; made of the other arguments where it is left out.
        max_length, like_harness: those of ``Adapter``.
        batch_size, max_batch_size, device: taken since the harness gives them to every model;
            edgellm chooses both itself.
        settings: those of ``edgellm.load``.
    """

    cache_hook: Any
    """The harness' own cache, from its base class."""

    def __init__(
        self,
        pretrained: str | LLM = "",
        *,
        adapter: Adapter | None = None,
        max_length: int | None = None,
        like_harness: bool = False,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        llm = pretrained
        if not isinstance(llm, LLM):
            llm = load(llm, **settings)
        if adapter is None:
            adapter = Adapter(llm, max_length=max_length, like_harness=like_harness)
        self.llm, self.adapter = llm, adapter

    @property
    def tokenizer_name(self) -> str:
        """A name for files with prompts, one for each way to write a conversation."""
        template = self.llm.tokenizer.chat_template or ""
        return f"edgellm-{self.llm.path.name}-{sha256(template.encode()).hexdigest()[:12]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the model's chat template."""
        return self.llm.tokenizer.chat_template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the prompt that the model's template makes of it."""
        return self.adapter.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return how likely continuations are after their contexts."""
        arguments = [request.args[:2] for request in requests]
        scores = self.adapter.loglikelihoods(arguments, _questions(requests))
        return self._kept("loglikelihood", requests, scores)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return how likely whole texts are."""
        texts = [request.args[0] for request in requests]
        sums = self.adapter.rolling_loglikelihoods(texts, _questions(requests))
        return self._kept("loglikelihood_rolling", requests, sums)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return texts that continue prompts."""
        arguments = [request.args[:2] for request in requests]
        texts = self.adapter.generate(arguments, _questions(requests))
        return self._kept("generate_until", requests, texts)

    def get_model_info(self) -> Mapping[str, str]:
        """Return facts for the harness' own result files."""
        return {"model_path": str(self.llm.path), "model_plan": repr(self.llm.plan)}

    def _kept(self, kind: str, requests: Sequence[Any], answers: list[Any]) -> list[Any]:
        """Give answers to the harness' own cache, where it has one, and return them."""
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return answers


@cache
def model_class() -> Any:
    """Return the class of edgellm's models in the harness, and register it as ``edgellm``."""
    require_library()
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    names = {"__module__": __name__, "__doc__": HarnessModel.__doc__}
    made = new_class("EdgeLM", (HarnessModel, LM), exec_body=lambda body: body.update(names))
    return register_model("edgellm")(made)


def _questions(requests: Sequence[Any]) -> list[Question]:
    return [(request.task_name or "", request.doc_id or 0) for request in requests]


def __getattr__(name: str) -> Any:
    """Return the class where it is asked for by name, as the harness' entry points do."""
    if name == "EdgeLM":
        return model_class()
    raise AttributeError(name)
