"""Drafters and speculations whose draft tokens are known beforehand."""

from support import tiny

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.speculation.controller import Speculation
from edgellm.speculation.factory import load_draft
from edgellm.speculation.proposal import ROOT, DraftToken, NoDrafts


class EqualSteps(Speculation):
    """A speculation for which every step takes a second, whatever its rows: all drafts pay."""

    def record_step(self, rows, seconds):
        super().record_step(rows, 1.0)


class KnownText(NoDrafts):
    """A drafter that knows the text; at the places ``wrong`` it says something else."""

    prior_acceptance = (0.9,)

    def __init__(self):
        self.text, self.wrong, self.place = [], frozenset(), 0

    def begin(self, tokens, sampling):
        self.place = len(tokens)

    def add(self, token):
        self.place += 1

    def propose(self):
        for place in range(self.place, len(self.text)):
            yield DraftToken((self.text[place] + (place in self.wrong)) % tiny.VOCABULARY, 0)


class KnownTree(KnownText):
    """A drafter whose tree holds the text among other branches, the text not always first."""

    def propose(self):
        on_text = ROOT
        count = 0
        for place in range(self.place, len(self.text)):
            right = DraftToken(self.text[place], 0, parent=on_text)
            others = [
                DraftToken((self.text[place] + number) % tiny.VOCABULARY, 0, parent=on_text)
                for number in (1, 2)
            ]
            below = [DraftToken(self.text[place], 0, parent=count + number) for number in (0, 1)]
            if place in self.wrong:
                right, others[0] = others[0], right
                on_text = count + 1
            else:
                on_text = count
            yield from (right, *others, *below)
            count += 5


class ConstantDrafter(NoDrafts):
    """A drafter that always proposes the same token, which is said to cost time, or not to."""

    prior_acceptance = (0.9,)

    def __init__(self, token, *, costs_time):
        self.token, self.costs_time = token, costs_time

    def propose(self):
        while True:
            yield DraftToken(self.token, 0)


def all_drafts(drafter):
    """What makes a speculation that verifies what a drafter proposes."""
    return lambda *_: EqualSteps(drafter, extra_row_cost=0.0)


def with_draft(folder):
    """What makes a speculation with a draft model."""

    def make(model, tokenizer, settings, plan):
        draft = load_draft(read_checkpoint(folder), model, tokenizer, settings, plan)
        return EqualSteps(draft, extra_row_cost=0.0)

    return make
