"""The files beside a vocabulary: special and added tokens, how a text begins and ends."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgellm.console.units import plural
from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.strict_json import quoted, read_json

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_ADDED = 1 << 17
MAX_BYTES = 64 << 20
MAX_ITEMS = 10 * MAX_ADDED
MAX_BEYOND = 256  # of another model's tokenizer more tokens have no rows
SWITCHES = ("special", "lstrip", "rstrip", "single_word")  # as AddedToken has them
MAX_TOKEN = 1024  # characters
MAX_ID = 1 << 24


class AddedToken(NamedTuple):  # speech models have tens of thousands
    """A token that is found in a text before the vocabulary sees it.

    Attributes:
        content: how it is written.
        special: whether it is control and not text.
        lstrip: whether it takes the white space before it.
        rstrip: whether it takes the white space after it.
        single_word: whether it counts only between word borders.
        normalized: whether it is looked for after the text is normalized.
    """

    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def splits_text(self) -> bool:
        """Whether nothing before the token changes it or is changed by it."""
        return not (self.lstrip or self.single_word or self.normalized)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The contents of tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Attributes:
        named: tokens with a role such as "bos_token"; ``None`` where a file says that there is
            none.
        extra: further special tokens, without a role.
        added: tokens with ids.
        config: tokenizer_config.json.
    """

    named: Mapping[str, str | None] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    added: Mapping[int, AddedToken] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def flag(self, name: str, default: bool) -> bool:
        """Return a switch of tokenizer_config.json.

        Raises:
            TokenizerError: it is neither true nor false.
        """
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise TokenizerError(
                f"tokenizer_config.json: {name} is {quoted(value)}; it must be true or false"
            )
        return value

    @property
    def special_texts(self) -> frozenset[str]:
        """Every token that is control and not text."""
        named = filter(None, self.named.values())
        added = (token.content for token in self.added.values() if token.special)
        return frozenset([*named, *self.extra, *added])


def read_settings(folder: Path) -> Settings:
    """Return the contents of the small files of a folder; each of them may be missing.

    Where tokenizer_config.json lists added tokens, the two older files are not asked, as in
    transformers 5.

    Raises:
        TokenizerError: one of them is damaged or too large.
    """
    config = _read(folder / "tokenizer_config.json")
    listed = config.get("added_tokens_decoder")
    roles = config
    if listed is None:
        roles = config | _read(folder / "special_tokens_map.json")
    named: dict[str, str | None] = {}
    for role, value in roles.items():
        if role in NAMED or (role.endswith("_token") and isinstance(value, str | dict)):
            named[role] = None
            if value is not None:
                named[role] = _content(value, role)
    extra = [
        _content(value, role)
        for role in ("additional_special_tokens", "extra_special_tokens")
        for value in _listing(roles.get(role), role)
    ]
    if listed is None:
        special = {*named.values(), *extra}
        listed = _by_id(_read(folder / "added_tokens.json"), special)
    return Settings(named=named, extra=tuple(extra), added=read_added(listed), config=config)


def read_added(listed: Any) -> dict[int, AddedToken]:
    """Return added tokens by their ids, lowest first.

    Args:
        listed: a mapping of ids, as digits or numbers, to mappings with "content".

    Raises:
        TokenizerError: it is damaged, or two of them are the same.
    """
    if not isinstance(listed, Mapping) or len(listed) > MAX_ADDED:
        raise TokenizerError(f"added tokens must be a mapping of at most {MAX_ADDED} ids")
    ids = list(listed)
    if not {*map(type, ids)} <= {int} or max(ids, default=0) >= MAX_ID:
        ids = list(map(_id, listed))
    if len(set(ids)) < len(ids):
        doubled = Counter(ids).most_common(1)[0][0]
        raise TokenizerError(f"two added tokens have the id {doubled}")
    tokens = _tokens(listed.values())
    added = {token_id: token for token_id, token in zip(ids, tokens, strict=True) if token.content}
    if len({token.content for token in added.values()}) < len(added):
        raise TokenizerError("an added token is listed twice")
    return dict(sorted(added.items()))


def within_rows(
    added: Mapping[int, AddedToken], rows: int | None, *, own: Collection[str] = ()
) -> dict[int, AddedToken]:
    """Return added tokens without the few that the model has no rows for; these are told.

    Tokens that were added for training only, a padding one mostly, are never asked for.

    Args:
        added: tokens by their ids.
        rows: how many ids the model knows; None: all of them.
        own: tokens of the vocabulary itself, which stay.
    """
    beyond = [
        token_id
        for token_id, token in added.items()
        if rows is not None and token_id >= rows and token.content not in own
    ]
    if not 0 < len(beyond) <= MAX_BEYOND:
        return dict(added)
    shown = ", ".join(quoted(added[token_id].content) for token_id in beyond[:3])
    if len(beyond) > 3:
        shown += " ..."
    warnings.warn(
        f"the tokenizer has {plural(len(beyond), 'added token')} beyond the model's {rows} "
        f"ids, left out: {shown}",
        UserWarning,
        stacklevel=2,
    )
    return {token_id: token for token_id, token in added.items() if token_id not in beyond}


def _tokens(values: Collection[Any]) -> list[AddedToken]:
    """Return added tokens from their JSON, a switch of all of them at a time.

    Speech models have tens of thousands. Raises TokenizerError.
    """
    if not {*map(type, values)} <= {dict}:
        other = next(value for value in values if not isinstance(value, dict))
        raise TokenizerError(
            f"an added token is {quoted(other)}; it must be an object with a content"
        )
    contents = [value.get("content") for value in values]
    if not {*map(type, contents)} <= {str} or max(map(len, contents), default=0) > MAX_TOKEN:
        contents = [_content(value, "an added token") for value in values]
    columns = {name: [value.get(name, False) for value in values] for name in SWITCHES}
    columns["normalized"] = [
        value.get("normalized", not special)
        for value, special in zip(values, columns["special"], strict=True)
    ]
    for name, column in columns.items():
        if not {*map(type, column)} <= {bool}:
            at = next(at for at, switch in enumerate(column) if not isinstance(switch, bool))
            raise TokenizerError(
                f"added token {quoted(contents[at])}: {name} is {quoted(column[at])}; "
                "it must be true or false"
            )
    return list(map(AddedToken._make, zip(contents, *columns.values(), strict=True)))


def _id(key: Any) -> int:
    """Return an id that is a number or, as a key of JSON, written in digits."""
    token_id = key
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
        token_id = int(key)
    if not isinstance(token_id, int) or token_id >= MAX_ID:
        raise TokenizerError(f"an added token has the id {quoted(key)}")
    return token_id


def _content(value: Any, role: str) -> str:
    """Return the text of a token, which stands alone or in an object with further settings."""
    content = value
    if isinstance(value, dict):
        content = value.get("content")
    if not isinstance(content, str) or len(content) > MAX_TOKEN:
        raise TokenizerError(
            f"{role} is {quoted(content)}; it must be a text of at most {MAX_TOKEN} characters"
        )
    return content


def _listing(value: Any, role: str) -> list[Any]:
    """Return the values of a list, or of an object with names for them."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    if not isinstance(value, list):
        raise TokenizerError(f"{role} is {quoted(value)}; it must be a list")
    return value


def _by_id(tokens: Mapping[str, Any], special: Collection[str | None]) -> dict[int, Any]:
    """Return added_tokens.json, which maps tokens to ids, the other way round."""
    listed: dict[int, Any] = {}
    for content, token_id in tokens.items():
        # bool is an int too
        if type(token_id) is not int or not 0 <= token_id < MAX_ID:
            raise TokenizerError(
                f"added_tokens.json: {quoted(content)} has the id {quoted(token_id)}"
            )
        if token_id in listed:
            raise TokenizerError(f"added_tokens.json: two tokens have the id {token_id}")
        listed[token_id] = {"content": content, "special": content in special}
    return listed


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, and nothing where there is no file."""
    if not path.exists():
        return {}
    try:
        return read_json(path, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    except EdgeLLMError as error:
        raise TokenizerError(error.message) from error
