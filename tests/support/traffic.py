"""Sequences that come, are cancelled, run out of time and end, at random."""

from edgellm.errors import QueueFullError

SYSTEMS = [[5 + n * 7 % 290 for n in range(40)], [5 + n * 11 % 290 for n in range(70)]]
"""What many prompts begin with."""


def random_prompt(draw):
    """A prompt that others begin like, or not."""
    begin = draw.choice([[], *SYSTEMS])
    return [*begin, *(draw.randrange(5, 295) for _ in range(draw.randint(1, 12)))]


class Traffic:
    """What comes to an engine, and what it says of each sequence.

    Args:
        engine: where they come to.
        draw: the source of chance.
        max_tokens: of sequences, one of these.

    Attributes:
        prompts: of each sequence, with its settings.
        found: the tokens of each sequence.
    """

    def __init__(self, engine, draw, *, max_tokens=range(1, 13)):
        self.engine = engine
        self.draw = draw
        self.max_tokens = max_tokens
        self.prompts = {}
        self.found = {}

    def submit(self):
        """Submit one prompt or several completions of one; a full queue refuses."""
        draw = self.draw
        prompt, n = random_prompt(draw), draw.choice([1, 1, 1, 3])
        settings = {
            "max_tokens": draw.choice(self.max_tokens),
            "temperature": draw.choice([0.0, 1.0]),
            "seed": draw.randrange(3),
        }
        timeout = draw.choice([None, None, None, 1e-4, 0.02])
        try:
            first = self.engine.submit(prompt, n=n, timeout=timeout, **settings)
        except QueueFullError:
            return
        for place in range(n):
            seed = settings["seed"] + place
            self.prompts[first + place] = prompt, {**settings, "seed": seed}
            self.found.setdefault(first + place, [])

    def cancel(self):
        """Cancel one that may have ended long ago."""
        if self.prompts:
            self.engine.cancel(self.draw.choice(list(self.prompts)))

    def take(self, tokens):
        """Note what a step has returned: nothing comes after a last token."""
        for number, token in tokens:
            so_far = self.found.setdefault(number, [])
            assert not so_far or so_far[-1].finish_reason is None
            so_far.append(token)

    def check_memory(self, cache):
        """The bytes that are told are those of the caches, and within the budget."""
        kv_bytes = self.engine.kv_bytes
        assert kv_bytes.in_use >= cache.running_bytes
        assert cache.running_bytes + kv_bytes.kept <= kv_bytes.budget
        assert kv_bytes.in_use <= kv_bytes.budget

    def check_end(self, cache, alone, *, only=None):
        """Nothing is left, and all have said what they say alone, as far as they came.

        ``only`` so many are compared, where it is given.
        """
        assert self.engine.idle
        assert (self.engine.running, self.engine.waiting) == (0, 0)
        assert (self.engine.kv_bytes.in_use, cache.running_bytes) == (0, 0)
        assert self.engine.stats.sequences == len(self.prompts) == len(self.found)
        for number, (prompt, settings) in self.prompts.items():
            *tokens, last = self.found[number]
            assert last.finish_reason in ("stop", "length", "cancelled", "timeout")
            if only is not None and number not in only:
                continue
            ids = [token.id for token in [*tokens, last] if token.id is not None]
            expected = alone(prompt, settings)
            if last.id is not None:
                assert ids == expected
            assert ids == expected[: len(ids)]
