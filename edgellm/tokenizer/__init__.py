"""Text to token ids and back, from the files of a Hugging Face model folder.

``tokenizer.py`` has the class that others use; ``tokenizer_json.py`` and ``spm.py`` are its two
forms of vocabulary, ``detokenizer.py`` turns ids into text, ``added_tokens.py`` reads the small
files. It stands on ``chat_template`` and ``files``.
"""

from __future__ import annotations

from edgellm.tokenizer.detokenizer import StreamDecoder
from edgellm.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
