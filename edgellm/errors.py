"""Every error that edgellm raises on purpose: a fact, and a next step as ``hint``.

EdgeLLMError                exit status 1, unless it says otherwise
|-- ConfigError             a setting, an option or a name (exit status 2)
|-- MemoryBudgetError       the model does not fit the budget (exit status 3)
|-- BackendError            no such arithmetic library or device here
|-- ModelNotFoundError      nothing has this name
|-- DownloadError           the Hub could not be reached, or refused
|-- FormatError             a file is damaged, or lies
|-- UnsupportedModelError   a whole model of a kind that does not run
|-- TokenizerError          a tokenizer is missing, damaged or another model's
|-- TemplateError           a chat template is missing, damaged, or refuses
|-- ConversionError         a conversion could not be finished, or a file not be written
|-- ReadError               a file could not be read
|-- ContextError            the prompt does not fit the context
|-- QueueFullError          as many sequences wait as may
|-- MachineError            another machine of a cluster is gone, or refused
|-- NotFiniteError          a model's logits, or scores made of them, are not finite
`-- ClosedError             the model was closed
"""

from __future__ import annotations

from typing import ClassVar

CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
"""What a terminal obeys instead of showing it: C0, DEL and C1, also those of eight bits."""

LONE_SURROGATES = range(0xD800, 0xE000)
"""No characters; Python holds the bytes of a file name that is not UTF-8 in some of them."""

_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*CONTROLS, *LONE_SURROGATES)}
for _kept in "\n\t":
    del _ESCAPES[ord(_kept)]


def escape_controls(text: str) -> str:
    r"""Return a text that any terminal shows: each control but newline and tab as ``\x1b``."""
    return text.translate(_ESCAPES)


class EdgeLLMError(Exception):
    """The base of the tree; the command line catches this class and nothing else.

    Both texts often quote what a stranger wrote; they hold no controls, wherever they are printed.

    Args:
        message: one sentence that states the fact.
        hint: the next step; default: the usual one of its kind, if it has one.
    """

    exit_code: ClassVar[int] = 1
    usual_hint: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message: str = escape_controls(message)
        self.hint = hint or self.usual_hint
        if self.hint is not None:
            self.hint = escape_controls(self.hint)
        super().__init__(self.message)


class ConfigError(EdgeLLMError):
    """A setting, an option or a name is outside what is allowed."""

    exit_code: ClassVar[int] = 2


class MemoryBudgetError(EdgeLLMError):
    """The model cannot run inside the memory budget."""

    exit_code: ClassVar[int] = 3


class BackendError(EdgeLLMError):
    """The library or device that was asked for is not available."""


class ModelNotFoundError(EdgeLLMError):
    """No folder, Hub repository or bundled model has this name."""


class DownloadError(EdgeLLMError):
    """The Hub could not be reached, or refused the request."""


class FormatError(EdgeLLMError):
    """A file is damaged, or does not hold what it declares."""

    usual_hint: ClassVar[str | None] = "download or copy the file again"


class UnsupportedModelError(EdgeLLMError):
    """The model is valid, but of a kind that edgellm does not run."""

    usual_hint: ClassVar[str | None] = (
        "choose a dense model of the LLaMA, Mistral, Qwen2 or Qwen3 family"
    )


class TokenizerError(EdgeLLMError):
    """The tokenizer is missing, damaged or does not fit the model."""

    usual_hint: ClassVar[str | None] = "download or copy the tokenizer's files again"


class TemplateError(EdgeLLMError):
    """A chat template is missing, damaged, or refuses the conversation."""

    usual_hint: ClassVar[str | None] = (
        "put another chat_template.jinja into the model's folder, or use generate"
    )


class ConversionError(EdgeLLMError):
    """A conversion could not be finished, or a file could not be written."""


class ReadError(EdgeLLMError):
    """Weights could not be read from disk; says the file and the offset."""

    usual_hint: ClassVar[str | None] = (
        "check that the file is there and readable, and check the disk it is on"
    )


class ContextError(EdgeLLMError):
    """The prompt does not fit the context."""


class QueueFullError(EdgeLLMError):
    """An engine has as many waiting sequences as its ``max_queue`` allows."""


class MachineError(EdgeLLMError):
    """Another machine of a cluster cannot be reached, is gone, or refused; says which."""

    usual_hint: ClassVar[str | None] = (
        "see what it says itself; edgellm cluster status HOSTS shows which are there, and edgellm "
        "cluster join on a machine starts it again"
    )


class NotFiniteError(EdgeLLMError):
    """A model's logits are infinite or NaN, so that they give no token, score or metric."""


class ClosedError(EdgeLLMError):
    """The model was closed before or while it was used."""

    usual_hint: ClassVar[str | None] = "load it again"
