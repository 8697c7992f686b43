"""What guesses are worth: tokens a weight pass on stories and on texts that repeat themselves, and seconds a token when paged.

    python -m edgellm.bench.studies.speculation                                       the bundled model, with and without its draft
    python -m edgellm.bench.studies.speculation --prompts FILE.jsonl --count 200      prompts of a file, one {"prompt": ...} a line
    python -m edgellm.bench.studies.speculation --paged ./llama-7b --memory 1.5GB     also on a large model, with acceptances replayed

Every text is compared with that of plain decoding. A model of random weights says nothing that
could be guessed, so on the large one the guesses are its own text, with errors put where the
draft's were on the bundled model. What a draft for a model of that size would cost itself is not in
it. The result is one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device.streams import borrowed_stream
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.plan.planner import plan_for
from edgellm.runtime.loader import load_model, open_reader
from edgellm.settings import LoadSettings, Sampling
from edgellm.speculation.controller import Speculation
from edgellm.speculation.factory import load_draft, max_draft_tokens
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import Drafter, DraftToken
from edgellm.tokenizer import Tokenizer

STORIES = (
    "Once upon a time, there was a little girl named Lily. She loved to",
    "One day, a boy named Tim went to the park with his dog. They saw",
    "Tom and his mom were in the kitchen. Tom wanted to",
    "There was a big brown bear who lived in the forest. He was",
    "Sara had a red ball. She liked to play with it every day. One day",
    "Once there was a small bird who could not fly. The bird",
    "Ben and Mia found a shiny box under the tree. They",
    "Grandma made a cake. It smelled so good that",
)
SENTENCES = (
    "The sun is hot. The ice is cold.",
    "He said no. She said yes.",
    "It is big. It is red. It is fun.",
    "I see a cat. I see a dog.",
    "Yes, it is. No, it is not.",
    "She was happy. He was happy.",
    "The ball is red. The car is blue.",
    "Tom has a ball. Lily has a doll.",
)
REPEATING = tuple(" ".join([sentence] * times) for sentence in SENTENCES for times in (6, 10))
"""Not every answer to these repeats itself; those count of which the repeated share is at least REPEATED."""

REPEATED, RUN = 0.5, 4


class Recording(Speculation):
    """A speculation that keeps what became of each pass.

    Args:
        drafter: makes the guesses.
        slow: whether to guess as if every pass took a second, whatever it verifies: as where the
            disk is the limit.
    """

    def __init__(self, drafter: Drafter, *, max_draft_tokens: int, slow: bool) -> None:
        super().__init__(
            drafter,
            max_draft_tokens=max_draft_tokens,
            extra_row_cost=0.0 if slow else 0.15,
        )
        self._slow = slow
        self.passes: list[list[int]] = []

    def record_step(self, rows: int, seconds: float) -> None:
        """Take note of a pass: its rows, and how many tokens it gives."""
        super().record_step(rows, 1.0 if self._slow else seconds)
        self.passes.append([rows, 0])

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        super().add(token)
        if self.passes:
            self.passes[-1][1] += 1

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Look at another sequence."""
        super().begin(tokens, sampling)
        self.passes.append([0, 0])  # the prompt's pass gives the first token


@dataclass
class Replay:
    """A drafter that knows the text, and errs where another has erred.

    Attributes:
        text: prompt and answer.
        pattern: for each pass, how many guesses are made and how many of them are right.
    """

    text: Sequence[int]
    pattern: Iterator[tuple[int, int]]
    active: bool = True
    costs_time: bool = False
    prior_acceptance: Sequence[float] = (1.0,)
    place: int = field(default=0, init=False)

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Begin at the end of a sequence."""
        self.place = len(tokens)

    def add(self, token: int) -> None:
        """Go on."""
        self.place += 1

    def catch_up(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def propose(self) -> Iterator[DraftToken]:
        """Yield the text, up to the next error; a wrong token after it."""
        if not self.active:
            return
        count, right = next(self.pattern)
        for number, token in enumerate(self.text[self.place : self.place + count]):
            yield DraftToken(token if number < right else token ^ 1, 0)


class AllOfThem(Speculation):
    """A speculation that verifies all guesses: how many there are is part of what is replayed."""

    def propose(self, max_tokens: int) -> list[DraftToken]:
        """All that the drafter has."""
        return list(islice(self.drafter.propose(), min(self.max_draft_tokens, max_tokens)))


@dataclass(frozen=True)
class Opened:
    """What an LLM is made of, before it has guesses."""

    checkpoint: Checkpoint
    settings: LoadSettings

    def llm(self, make: Any = None) -> tuple[LLM, Any]:
        """A loaded model, and the speculation that ``make(model, tokenizer, plan)`` makes for it."""
        plan = plan_for(self.checkpoint, self.settings)
        tokenizer = Tokenizer.from_folder(
            self.checkpoint.folder.path, vocab_size=self.checkpoint.config.vocab_size
        )
        reader = open_reader(self.checkpoint, plan)
        with borrowed_stream():
            model = load_model(self.checkpoint, plan, reader, self.settings)
            speculation = make(model, tokenizer, plan) if make else None
        return LLM(
            self.checkpoint, tokenizer, model, plan, reader, speculation=speculation
        ), speculation


def measure(
    opened: Opened,
    prompts: Sequence[str],
    tokens: int,
    draft: Path | None,
    *,
    slow: bool,
    least: float = 0.0,
) -> tuple[dict[str, Any], list[list[int]]]:
    """Tokens a weight pass, and whether the texts are those of plain decoding; with what became of each pass.

    Only answers count of which plain decoding repeats at least the share ``least``.
    """

    def make(model: Any, tokenizer: Tokenizer, plan: Any) -> Recording:
        drafter = (
            load_draft(read_checkpoint(draft), model, tokenizer, opened.settings, plan)
            if draft
            else NGramDrafter()
        )
        return Recording(drafter, max_draft_tokens=max_draft_tokens(model), slow=slow)

    plain, _ = opened.llm()
    guessed, speculation = opened.llm(make)
    answers, seconds, plain_seconds, equal = [], 0.0, 0.0, 0
    with plain, guessed:
        for prompt in prompts:
            whole = plain.generate(prompt, max_tokens=tokens)
            if (
                repeated(plain.tokenizer.encode(prompt), [token.id or 0 for token in whole.tokens])
                < least
            ):
                continue
            answer = guessed.generate(prompt, max_tokens=tokens)
            equal += [token.id for token in whole.tokens] == [token.id for token in answer.tokens]
            answers.append(answer.stats)
            plain_seconds, seconds = (
                plain_seconds + whole.stats.decode_seconds,
                seconds + answer.stats.decode_seconds,
            )
    made = sum(stats.completion_tokens - 1 for stats in answers)
    passes = sum(stats.decode_passes for stats in answers)
    drafted = sum(stats.drafted_tokens for stats in answers)
    return {
        "guesses": "draft" if draft else "ngram",
        "as_if": "every pass takes as long" if slow else "measured",
        "prompts": len(prompts),
        "texts_counted": len(answers),
        "equal_texts": equal,
        "tokens": made,
        "tokens_per_weight_pass": made / passes,
        "drafted_tokens": drafted,
        "acceptance": sum(stats.accepted_tokens for stats in answers) / drafted
        if drafted
        else None,
        "tokens_per_second": made / seconds,
        "plain_tokens_per_second": made / plain_seconds,
    }, speculation.passes


def replayed(
    folder: Path, memory: str, passes: Sequence[Sequence[int]], *, count: int, rounds: int
) -> dict[str, Any]:
    """Seconds a token of a paged model, plain and with replayed guesses, in turns."""
    checkpoint = read_checkpoint(folder)
    chosen = spread(sorted((rows - 1, got - 1) for rows, got in passes), count)
    factor = statistics.mean(right + 1 for _, right in chosen)
    length = sum(right + 1 for _, right in chosen) * rounds + count
    context = length + 64
    resident, _ = Opened(checkpoint, LoadSettings(context=context, speculate="off")).llm()
    with resident:
        if not resident.plan.resident:
            raise SystemExit("the text is made by the model in memory, and there is too little")
        text = [1, *(token.id or 0 for token in resident.stream([1], max_tokens=length + 8))]
    replay = Replay(text, cycle(chosen))

    def make(model: Any, tokenizer: Tokenizer, plan: Any) -> Speculation:
        return AllOfThem(replay, max_draft_tokens=max_draft_tokens(model), extra_row_cost=0.0)

    paged, _ = Opened(checkpoint, LoadSettings(memory=memory, context=context)).llm(make)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    got: dict[bool, list[float]] = {False: [], True: []}
    with paged:
        place = 1
        for _ in range(rounds):
            for active in (False, True):
                replay.active, replay.pattern = active, iter(chosen)
                new = 1 + (sum(right + 1 for _, right in chosen) if active else max(2, count // 2))
                answer = paged.generate(text[:place], max_tokens=new, reuse_cache=True)
                if [token.id for token in answer.tokens] != text[place : place + new]:
                    raise SystemExit("the text is another than that of plain decoding")
                stats = answer.stats
                seconds[active].append(stats.decode_seconds / (stats.completion_tokens - 1))
                got[active].append((stats.completion_tokens - 1) / stats.decode_passes)
            place += new
    plain, guessed = statistics.median(seconds[False]), statistics.median(seconds[True])
    gain = statistics.median(
        one / other for one, other in zip(seconds[False], seconds[True], strict=True)
    )
    return {
        "model": str(folder),
        "memory": memory,
        "pinned_layers": len(paged.plan.pinned),
        "layers": checkpoint.config.num_hidden_layers,
        "recorded_tokens_per_weight_pass": factor,
        "tokens_per_weight_pass": statistics.median(got[True]),
        "plain_seconds_per_token": plain,
        "seconds_per_token": guessed,
        "samples": {"plain": seconds[False], "guessed": seconds[True]},
        "gain": gain,
        "share_of_factor": gain / factor,
    }


def repeated(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """The share of an answer's tokens that end a run of four that has occurred before, in prompt or answer."""
    text, runs, again = [*prompt, *answer], set[tuple[int, ...]](), 0
    for end in range(RUN, len(text) + 1):
        run = tuple(text[end - RUN : end])
        again += end > len(prompt) and run in runs
        runs.add(run)
    return again / len(answer)


def spread(items: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """``count`` of some passes that stand for all of them, evenly spaced by how many guesses were right."""
    ordered = sorted(items, key=lambda item: item[1])
    chosen = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
    return chosen[::2] + chosen[1::2]


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="stories")
    parser.add_argument("--draft", default="stories-draft")
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--paged", type=Path)
    parser.add_argument("--memory", default="1.5GB")
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    stories: Sequence[str] = STORIES
    if options.prompts:
        with options.prompts.open(encoding="utf-8") as lines:
            stories = [json.loads(line)["prompt"] for line in islice(lines, options.count)]
    opened = Opened(read_checkpoint(locate(options.model)), LoadSettings())
    draft, found, passes = locate(options.draft), list[dict[str, Any]](), list[list[int]]()
    for name, prompts, drafter in (
        ("stories", stories, draft),
        ("stories", stories, None),
        ("repeating", REPEATING, None),
    ):
        for slow in (True, False):
            least = REPEATED if name == "repeating" else 0.0
            record, seen = measure(opened, prompts, options.tokens, drafter, slow=slow, least=least)
            found.append({"texts": name, **record})
            passes = passes or [one for one in seen if one[0] > 1]
            sys.stderr.write(f"{json.dumps(found[-1])}\n")
    document: dict[str, Any] = {"schema": 1, "environment": environment(), "records": found}
    if options.paged:
        document["paged"] = replayed(
            options.paged, options.memory, passes, count=options.passes, rounds=options.rounds
        )
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
