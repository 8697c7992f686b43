"""Interim tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.errors import TokenizerError


class StreamDecoder:
    """Interim."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._ids, self._shown = tokenizer, list[int](), ""

    def add(self, token_id: int) -> str:
        """Interim."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("�"):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def finish(self) -> str:
        """Interim."""
        return self._tokenizer.decode(self._ids)[len(self._shown) :]


class Tokenizer:
    """Interim."""

    def __init__(self, path: Path) -> None:
        config = json.loads((path / "tokenizer_config.json").read_text()) if (path / "tokenizer_config.json").exists() else {}
        self.chat_template: str | None = config.get("chat_template")
        self.eos_token_ids: frozenset[int] = frozenset()
        self._fast: Any = None
        if (path / "tokenizer.json").exists():
            import tokenizers

            self._fast = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
            self.vocab_size = self._fast.get_vocab_size()
            self.bos_token_id = self._fast.token_to_id(str(config.get("bos_token")))
        elif (path / "tokenizer.model").exists():
            import sentencepiece

            self._sp = sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
            self.vocab_size, self.bos_token_id = self._sp.vocab_size(), 1
        else:
            raise TokenizerError(f"{path} has no tokenizer")

    @classmethod
    def from_folder(cls, path: Path, *, vocab_size: int | None = None) -> Tokenizer:
        """Interim."""
        return cls(path)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Interim."""
        if self._fast is not None:
            return list(self._fast.encode(text, add_special_tokens=add_special_tokens).ids)
        bos = [1] if add_special_tokens else []
        if text.startswith("<s>"):
            bos, text = [1], text[3:]
        ids = self._sp.encode(text)
        return bos + (ids[1:] if re.match(r"<\|", text) else ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Interim."""
        if self._fast is not None:
            return str(self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens))
        return str(self._sp.decode([int(i) for i in ids if i > 6 or not skip_special_tokens]))

    def decoder(self) -> StreamDecoder:
        """Interim."""
        return StreamDecoder(self)

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Interim."""
        import jinja2

        template = jinja2.Environment().from_string(self.chat_template or "")  # noqa: S701
        bos = "<s>" if self._fast is None else ""
        text = template.render(messages=messages, bos_token=bos, eos_token="", add_generation_prompt=add_generation_prompt)
        return self.encode(text, add_special_tokens=False)
