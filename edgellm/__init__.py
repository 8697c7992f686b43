"""Run language models on the machine in front of you, even models larger than its memory.

import edgellm

llm = edgellm.load("stories")
for token in llm.stream("Once upon a time", max_tokens=32):
    print(token.text, end="")
"""

from __future__ import annotations

# not typing's own: the command line arms its signals only after this import, so it has to be short
TYPE_CHECKING = False

if TYPE_CHECKING:
    from edgellm.async_chat import AsyncChat
    from edgellm.async_llm import AsyncLLM
    from edgellm.async_stream import AsyncStream
    from edgellm.chat import Chat
    from edgellm.engine.engine import Engine
    from edgellm.engine.engine_stats import EngineStats, KVBytes
    from edgellm.errors import (
        BackendError,
        ClosedError,
        ConfigError,
        ContextError,
        ConversionError,
        DownloadError,
        EdgeLLMError,
        FormatError,
        MachineError,
        MemoryBudgetError,
        ModelNotFoundError,
        NotFiniteError,
        QueueFullError,
        ReadError,
        TemplateError,
        TokenizerError,
        UnsupportedModelError,
    )
    from edgellm.generation.output import (
        Beam,
        Completion,
        FinishReason,
        PromptToken,
        Token,
        TopLogprob,
    )
    from edgellm.generation.stats import Progress, Stats
    from edgellm.generation.stream import Stream
    from edgellm.llm import LLM
    from edgellm.memory_plan.plan import Plan
    from edgellm.open_llm import load
    from edgellm.plan_model import plan
    from edgellm.scoring.score_stream import ScoreStats, ScoreStream
    from edgellm.scoring.scorer import Score
    from edgellm.settings import LoadFields, LoadSettings, Sampling, SamplingFields
    from edgellm.structured.grammar import Grammar
    from edgellm.tokenizer import Tokenizer

    __version__: str

__all__ = [
    "LLM",
    "AsyncChat",
    "AsyncLLM",
    "AsyncStream",
    "BackendError",
    "Beam",
    "Chat",
    "ClosedError",
    "Completion",
    "ConfigError",
    "ContextError",
    "ConversionError",
    "DownloadError",
    "EdgeLLMError",
    "Engine",
    "EngineStats",
    "FinishReason",
    "FormatError",
    "Grammar",
    "KVBytes",
    "LoadFields",
    "LoadSettings",
    "MachineError",
    "MemoryBudgetError",
    "ModelNotFoundError",
    "NotFiniteError",
    "Plan",
    "Progress",
    "PromptToken",
    "QueueFullError",
    "ReadError",
    "Sampling",
    "SamplingFields",
    "Score",
    "ScoreStats",
    "ScoreStream",
    "Stats",
    "Stream",
    "TemplateError",
    "Token",
    "Tokenizer",
    "TokenizerError",
    "TopLogprob",
    "UnsupportedModelError",
    "load",
    "plan",
]

_MODULES = {
    "async_chat": ["AsyncChat"],
    "async_llm": ["AsyncLLM"],
    "async_stream": ["AsyncStream"],
    "chat": ["Chat"],
    "engine.engine": ["Engine"],
    "engine.engine_stats": ["EngineStats", "KVBytes"],
    "generation.output": [
        "Beam",
        "Completion",
        "FinishReason",
        "PromptToken",
        "Token",
        "TopLogprob",
    ],
    "generation.stats": ["Progress", "Stats"],
    "generation.stream": ["Stream"],
    "llm": ["LLM"],
    "memory_plan.plan": ["Plan"],
    "open_llm": ["load"],
    "plan_model": ["plan"],
    "scoring.score_stream": ["ScoreStats", "ScoreStream"],
    "scoring.scorer": ["Score"],
    "settings": ["LoadFields", "LoadSettings", "Sampling", "SamplingFields"],
    "structured.grammar": ["Grammar"],
    "tokenizer": ["Tokenizer"],
    "errors": [name for name in __all__ if name.endswith("Error")],
}
"""Modules with their public names; imported when a name is first asked for."""


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return [*__all__, "__version__"]


# A type checker would take every misspelt name for one that this function may return.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name. Raises BackendError where it needs MLX, which is not there."""
        if name == "__version__":
            from importlib.metadata import version  # slow to import, and seldom asked for

            return version("edgellm")
        for module, names in _MODULES.items():
            if name in names:
                return _imported(module, name)
        message = f"module 'edgellm' has no attribute {name!r}"
        if not name.startswith("_"):
            from difflib import get_close_matches

            for close in get_close_matches(name, __all__, n=1):
                message = f"{message}; did you mean {close}?"
        raise AttributeError(message)


def _imported(module: str, name: str) -> object:
    from importlib import import_module

    try:
        found: object = getattr(import_module(f"edgellm.{module}"), name)
    except ImportError as error:
        from edgellm.device.require_mlx import missing_backend

        without_backend = missing_backend(error)
        if without_backend is None:
            raise
        raise without_backend from error
    return found
