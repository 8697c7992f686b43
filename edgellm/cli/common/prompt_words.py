"""Models and prompts told apart, where a person types one in the other's place."""

from __future__ import annotations

from difflib import get_close_matches

from edgellm.cli.typed_text import looks_like_text
from edgellm.errors import ConfigError, ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.hub.names import parse_hub_name
from edgellm.hub.resolve import bundled_names
from edgellm.settings import DEFAULT_MODEL


def model_and_text(model: str, text: str, command: str) -> tuple[str, str]:
    """Return the model and the text that a command's one or two words mean.

    A first word that names no model and looks like a text is one, for the bundled model.

    Args:
        model: the first word.
        text: the second; empty if there is none.
        command: the words that call the command.

    Raises:
        ModelNotFoundError: a single word is neither.
        ConfigError: the text comes before the model.
    """
    if names_model(model):
        return model, text
    if looks_like_text(model):
        if text:
            raise ConfigError(
                f"there is no model {model!r}", hint=f"the model comes first: {command} MODEL TEXT"
            )
        return DEFAULT_MODEL, model
    if text or get_close_matches(model, bundled_names(), n=1):
        return model, text
    raise ModelNotFoundError(
        f"there is no model {model!r}",
        hint=f"models are named as on the Hub, OWNER/NAME, and edgellm list shows those here; "
        f'if it is a text: {command} {DEFAULT_MODEL} "{model}"',
    )


def names_model(word: str) -> bool:
    """Return whether a word is a bundled model, a name on the Hub, or a path that is there."""
    if word in bundled_names() or parse_hub_name(word) is not None:
        return True
    if looks_like_text(word) and len(word.encode()) > 255:
        return False  # longer than names may be, which the system refuses
    return given_path(word).exists()
