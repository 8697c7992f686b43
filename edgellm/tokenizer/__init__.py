"""Text to token ids and back, chat templates included, from the files of a Hugging Face model folder."""

from __future__ import annotations

from edgellm.tokenizer.detokenizer import StreamDecoder
from edgellm.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
