"""Language models on the machine in front of you, also those larger than its memory.

import edgellm

llm = edgellm.load("stories")
for token in llm.stream("Once upon a time", max_tokens=32):
    print(token.text, end="")
"""

from __future__ import annotations

# not typing's own: the command line arms its signals only after this import, so it has to be short
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from edgellm.chat import Chat
    from edgellm.errors import EdgeLLMError
    from edgellm.generation.output import Completion, Token
    from edgellm.generation.stats import Stats
    from edgellm.generation.stream import Stream
    from edgellm.llm import LLM
    from edgellm.open_llm import load
    from edgellm.settings import LoadSettings, Sampling

__all__ = [
    "LLM",
    "Chat",
    "Completion",
    "EdgeLLMError",
    "LoadSettings",
    "Sampling",
    "Stats",
    "Stream",
    "Token",
    "load",
]

_MODULES = {
    "LLM": "edgellm.llm",
    "Chat": "edgellm.chat",
    "Completion": "edgellm.generation.output",
    "EdgeLLMError": "edgellm.errors",
    "LoadSettings": "edgellm.settings",
    "Sampling": "edgellm.settings",
    "Stats": "edgellm.generation.stats",
    "Stream": "edgellm.generation.stream",
    "Token": "edgellm.generation.output",
    "load": "edgellm.open_llm",
}
"""The modules of the public names; imported when a name is first asked for."""


def __getattr__(name: str) -> Any:
    """Import a public name. Raises BackendError where it needs MLX, which cannot be imported."""
    if name == "__version__":
        from importlib.metadata import version  # slow to import, and seldom asked for

        return version("edgellm")
    if name not in _MODULES:
        raise AttributeError(f"module 'edgellm' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_MODULES[name]), name)
    except ImportError as error:
        if error.name == "mlx" or "libmlx" in str(error):
            from edgellm.errors import BackendError

            raise BackendError(
                "MLX has no backend here",
                hint="install one of them: pip install 'edgellm[cpu]' or 'edgellm[cuda]'",
            ) from error
        raise
