"""A release through our whole path, and beside its oracle."""

import json
import warnings
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from real_world.oracles.arrays_as_text import from_text
from real_world.texts import CHATS, PROMPT, TEXTS

NEW = 8
"""Tokens of the greedy text."""


@dataclass(slots=True)
class Row:
    """What was found of one release.

    Attributes:
        name: of it.
        kind: of it.
        oracle: what it was held against.
        ids: texts with equal ids, and texts, with and without what is put round them.
        decoded: texts that are decoded alike, and texts.
        templates: chats that are rendered alike, and chats.
        logits: the largest difference in float32.
        stored: root mean square difference of the model as it is stored, of the logits' spread.
        greedy: tokens that are equal, and tokens.
        notes: what else is to be said.
        wrong: what is not as it should be.
    """

    name: str
    kind: str
    oracle: str
    ids: tuple[int, int] | None = None
    decoded: tuple[int, int] | None = None
    templates: tuple[int, int] | None = None
    logits: float | None = None
    stored: float | None = None
    greedy: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def right(self):
        """Whether nothing differs."""
        return not self.wrong

    def as_dict(self):
        """The row as plain data."""
        return asdict(self) | {"right": self.right}


def compare(release, folder, peers, *, texts=TEXTS, chats=CHATS, backend="auto"):
    """Build a release in a folder and hold it against its oracle."""
    row = Row(release.name, release.kind, release.oracle, notes=[release.note] * bool(release.note))
    built = release.build(folder / "release", peers)
    built = replace(built, loads={"backend": backend} | built.loads)
    row.wrong += _compared(row, built, folder, peers, texts=texts, chats=chats)
    return row


def _compared(row, built, folder, peers, *, texts, chats):
    from edgellm.converters import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = built.path
        if built.converts:
            settings = {"bits": 16, "dtype": "float32"} | built.settings
            opened = convert(built.path, folder / "made", **settings).path
        ours = _opened(opened, built, texts, chats, within=None)
        asked = {"prompt": ours["prompt"], "new": NEW, "texts": texts, "chats": []}
        asked["decode"] = ours["ids"][0]
        if built.chats:
            asked["chats"] = chats
        if built.unused:
            asked["unused"] = True
        if built.adapter:
            asked["adapter"] = str(built.adapter)
        theirs = peers.ask(row.oracle, folder=str(built.theirs or built.path), **asked)
        if built.document:
            theirs["file"] = _by_document(built.document, ours, texts)
        yield from _tokens(row, ours, theirs, built, texts)
        yield from _chats(row, ours, theirs, built)
        yield from _numbers(row, ours, theirs, built)
        if built.keeps_codes:
            yield from _kept_codes(row, built, folder, ours["prompt"], theirs)
        if built.runs and built.converts:
            stored = _opened(built.path, built, texts, chats, within=ours["prompt"])
            spread = float(from_text(theirs["logits"]).std())
            row.stored = float(np.square(stored["logits"] - ours["logits"]).mean() ** 0.5) / spread
            if row.stored > built.as_it_is:
                yield f"as it is stored, logits are {row.stored:.3f} of their spread away"
            for key in ("ids", "decoded", "rendered"):
                if built.chats and stored[key] != ours[key]:
                    yield f"{key} of the folder as it is are not those of the converted one"


def _kept_codes(row, built, folder, prompt, theirs):
    """Hold a quantized file as it is usually converted against itself in float32."""
    from edgellm.converters import convert

    kept = convert(built.path, folder / "kept")
    ours = _opened(kept.path, built, [], [], within=prompt)["logits"]
    logits = from_text(theirs["logits"])
    row.stored = float(np.square(ours - logits).mean() ** 0.5 / logits.std())
    if row.stored > built.as_it_is:
        yield f"with kept codes, logits are {row.stored:.3f} of their spread away"


def _opened(path, built, texts, chats, *, within):
    """What we make of texts, chats and a prompt."""
    import edgellm

    settings = {
        "memory": "1GB",
        "threads": 1,
        "activations": "float",
        "kv_bits": 32,
        "context": 256,
    } | built.loads
    settings = {name: value for name, value in settings.items() if value is not None}
    with edgellm.load(path, **settings) as llm:
        tokenizer = llm.tokenizer
        ids = [
            [tokenizer.encode(text, add_special_tokens=special) for text in texts]
            for special in (True, False)
        ]
        prompt = within or tokenizer.encode(PROMPT)
        greedy = [token.id for token in llm.stream(prompt, max_tokens=NEW)]
        return {
            "prompt": prompt,
            "ids": ids,
            "decoded": [tokenizer.decode(one, skip_special_tokens=False) for one in ids[0]],
            "rendered": [_rendered(tokenizer, chat) for chat in chats] if built.chats else [],
            "logits": np.array(llm.logits(prompt)),
            "greedy": greedy,
            "ends": sorted(llm.eos_token_ids),
        }


def _rendered(tokenizer, chat):
    from edgellm.errors import TemplateError

    try:
        return tokenizer.render(**chat)
    except TemplateError as error:
        return {"error": error.message}


def _by_document(document, ours, texts):
    """What tokenizers makes of texts with a tokenizer.json."""
    import tokenizers

    plain = tokenizers.Tokenizer.from_str(json.dumps(document))
    return {
        "ids": [
            [plain.encode(text, add_special_tokens=special).ids for text in texts]
            for special in (True, False)
        ],
        "decoded": [plain.decode(ids, skip_special_tokens=False) for ids in ours["ids"][0]],
    }


def _tokens(row, ours, theirs, built, texts):
    """Hold ids and decoded texts against the vocabulary's own library, and where it is silent
    against the oracle; the row says where these two part."""
    if "ids" not in theirs:
        return
    equal = total = apart = 0
    for special in (0, 1):
        for place, text in enumerate(texts):
            mine, other = ours["ids"][special][place], theirs["ids"][special][place]
            wanted = other
            if theirs["file"] and theirs["file"]["ids"][special][place] is not None:
                wanted = theirs["file"]["ids"][special][place]
            apart += wanted != other
            equal += mine == wanted
            total += 1
            if mine != wanted:
                begin = _first_difference(mine, wanted)
                shown = ", ".join(str(ids[begin : begin + 8]) for ids in (mine, wanted, other))
                yield f"ids of {text[:40]!r} from {begin}: ours, wanted, {theirs['class']}: {shown}"
    row.ids = (equal, total)
    if apart:
        row.notes.append(f"ids as the file says; {theirs['class']} gives others in {apart} texts")
    right = 0
    for place, text in enumerate(texts):
        mine, wanted = ours["decoded"][place], {theirs["decoded"][place]}
        if text in built.decoded:
            wanted = {built.decoded[text]}
        elif theirs["file"]:
            wanted.add(theirs["file"]["decoded"][place])
        right += mine in wanted
        if mine not in wanted:
            yield f"decoded {text[:40]!r}: {mine[:60]!r}, theirs {wanted!r:.200}"
    row.decoded = (right, len(texts))


def _first_difference(one, other):
    """The place from which two lists are not the same."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))


def _chats(row, ours, theirs, built):
    if not built.chats or "rendered" not in theirs:
        return
    equal = 0
    for mine, other in zip(ours["rendered"], theirs["rendered"], strict=True):
        both_refuse = isinstance(mine, dict) and isinstance(other, dict)
        equal += both_refuse or mine == other
        if not both_refuse and mine != other:
            yield f"a chat: {mine!r:.200}, theirs {other!r:.200}"
    row.templates = (equal, len(ours["rendered"]))


def _numbers(row, ours, theirs, built):
    logits = from_text(theirs["logits"])
    if logits.shape != ours["logits"].shape:
        yield f"logits of shape {ours['logits'].shape}, theirs {logits.shape}"
        return
    row.logits = float(np.abs(ours["logits"] - logits).max())
    if not row.logits <= built.within:
        yield f"logits are up to {row.logits:.2g} away"
    same = sum(one == other for one, other in zip(ours["greedy"], theirs["greedy"], strict=False))
    stopped = bool(ours["greedy"]) and ours["greedy"][-1] in ours["ends"]
    count = len(ours["greedy"]) if stopped else NEW
    row.greedy = (same, count)
    if same != count:
        yield f"greedy {ours['greedy']}, theirs {theirs['greedy']}"
    missing = set(theirs.get("ends", ())) - set(ours["ends"])
    if missing:
        yield f"tokens that end: {ours['ends']}, theirs {theirs['ends']}"
