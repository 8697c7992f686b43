"""Pairs in a model's tokens: each as two sequences that begin alike."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.control_text import ControlText
from edgellm.training.data.conversations import Template, conversation
from edgellm.training.data.pairs import PairRecord
from edgellm.training.data.records import Record
from edgellm.training.data.rendering import Rendered, most_characters, sequence
from edgellm.training.micro_batch import PreferencePair


def render_pairs(
    pairs: Sequence[PairRecord], tokenizer: Tokenizer, *, template: Template, max_tokens: int
) -> Rendered:
    """Return pairs as sequences of at most ``max_tokens``: the chosen one, the rejected one, ...

    Of both the answers are learned, with the token that ends each. Pairs that differ in nothing, or
    of which one answer is cut off whole, are left out.

    Raises:
        ConfigError: nothing is learned of any pair.
        FormatError: a chat template refuses a record; says its line.
    """
    control = ControlText(tokenizer)
    found, most = Rendered(paired=True), most_characters(max_tokens)
    for pair in pairs:
        both = [
            Record(
                pair.line,
                (*pair.prompt, *answer),
                instruction=pair.instruction,
                tools=pair.tools,
            ).cut(most)
            for answer in (pair.chosen, pair.rejected)
        ]
        held = [own for record in both if (own := control.held(record)) is not None]
        try:
            rendered = [
                conversation(record, tokenizer, template, control=control, prompt=len(pair.prompt))[
                    -1
                ]
                for record in held
            ]
        except TokenizerError:
            if held == both:
                raise
            held = []
        if len(held) < len(both):
            found.control.append(pair.line)
            continue
        found.held += held != both
        found.cut += sum(len(ids) > max_tokens for ids, _ in rendered)
        sequences = [
            sequence(
                ids[:max_tokens], learned[:max_tokens], len(found.sequences) + place, pair.line
            )
            for place, (ids, learned) in enumerate(rendered)
        ]
        if not all(one.asked for one in sequences):
            found.left_out.append(pair.line)
        elif sequences[0].tokens == sequences[1].tokens:
            found.equal.append(pair.line)
        else:
            found.sequences += sequences
    found.require_any("pair")
    return found


def pairs_in(rendered: Rendered) -> list[PreferencePair]:
    """Return the pairs of what was rendered."""
    sequences = rendered.sequences
    return [
        PreferencePair(chosen, rejected)
        for chosen, rejected in zip(sequences[::2], sequences[1::2], strict=True)
    ]
