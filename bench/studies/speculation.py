"""Measure what draft tokens are worth: tokens per weight pass, seconds per token when paged.

    python -m edgellm.bench.studies.speculation
    python -m edgellm.bench.studies.speculation --prompts FILE.jsonl --count 200
    python -m edgellm.bench.studies.speculation --paged ./llama-7b --memory 1GB 1.5GB

The first measures the bundled model, with its draft model, with token recycling and with n-grams,
on stories and on texts that repeat themselves; the second takes prompts from a file, one
{"prompt": ...} a line; the third also replays acceptances on a large model.

Every text is compared with that of plain decoding. A model of random weights says nothing that
could be predicted, so on the large one the draft tokens are its own text, with errors put where
those of the draft model, and those of token recycling, were on the bundled model. What a draft
model for a model of that size would cost itself is not in it; token recycling has no such cost. The
result is one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import quotient
from edgellm.bench.studies.replay import Recording, Replay, VerifyAll
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device.streams import borrowed_stream
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.runtime.loader import load_model, open_reader
from edgellm.settings import LoadSettings
from edgellm.speculation.controller import Speculation
from edgellm.speculation.factory import load_draft, max_draft_tokens
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import Drafter
from edgellm.speculation.recycling import RecyclingDrafter
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
"""Prompts; not every answer to them repeats itself, and those that do not are left out."""

REPEATED = 0.5
"""The fraction of an answer that must repeat what came before, for a repeating text to count."""

RUN = 4
"""Tokens that occur together again where a text repeats itself."""

MakeSpeculation = Callable[[Any, Tokenizer, Any], Speculation]
"""Makes a speculation for a model, its tokenizer and its plan."""


@dataclass(frozen=True)
class Opener:
    """A checkpoint and settings that open models with one speculation or another."""

    checkpoint: Checkpoint
    settings: LoadSettings

    def open(self, make_speculation: MakeSpeculation | None = None) -> tuple[LLM, Any]:
        """Return a loaded model, and the speculation made for it."""
        plan = plan_for(self.checkpoint, self.settings)
        tokenizer = Tokenizer.from_folder(
            self.checkpoint.folder.path, vocab_size=self.checkpoint.config.vocab_size
        )
        reader = open_reader(self.checkpoint, plan)
        speculation = None
        with borrowed_stream():
            model = load_model(self.checkpoint, plan, reader, self.settings)
            if make_speculation is not None:
                speculation = make_speculation(model, tokenizer, plan)
        llm = LLM(self.checkpoint, tokenizer, model, plan, reader, speculation=speculation)
        return llm, speculation


def measure(
    opener: Opener,
    prompts: Sequence[str],
    tokens: int,
    draft: Path | Callable[[], Drafter],
    *,
    slow: bool,
    min_repeated: float = 0.0,
) -> tuple[dict[str, Any], list[list[int]]]:
    """Return figures of texts with draft tokens, and the rows and tokens of each step.

    Args:
        opener: of the model.
        prompts: one a text.
        tokens: maximum number of tokens of a text.
        draft: the draft model's folder, or what makes another drafter.
        slow: whether to propose as if every pass took as long.
        min_repeated: the fraction of a plain answer that must repeat itself for it to count.
    """

    def make_recording(model: Any, tokenizer: Tokenizer, plan: Any) -> Recording:
        if isinstance(draft, Path):
            drafter: Drafter = load_draft(
                read_checkpoint(draft), model, tokenizer, opener.settings, plan
            )
        else:
            drafter = draft()
        return Recording(drafter, max_draft_tokens=max_draft_tokens(model), slow=slow)

    plain, _ = opener.open()
    drafting, recording = opener.open(make_recording)
    plain_stats, stats = [], []
    equal = 0
    with plain, drafting:
        for prompt in prompts:
            expected = plain.generate(prompt, max_tokens=tokens)
            ids = [token.id or 0 for token in expected.tokens]
            if repeated_fraction(plain.tokenizer.encode(prompt), ids) < min_repeated:
                continue
            answer = drafting.generate(prompt, max_tokens=tokens)
            equal += ids == [token.id for token in answer.tokens]
            plain_stats.append(expected.stats)
            stats.append(answer.stats)
    # the prompt's pass gives the first token
    decoded = sum(one.completion_tokens - 1 for one in stats)
    drafted = sum(one.drafted_tokens for one in stats)
    figures = {
        "drafts_by": str(getattr(draft, "__name__", "draft model")),
        "as_if": "every pass takes as long" if slow else "measured",
        "prompts": len(prompts),
        "texts_counted": len(stats),
        "equal_texts": equal,
        "tokens": decoded,
        "tokens_per_weight_pass": decoded / sum(one.decode_passes for one in stats),
        "drafted_tokens": drafted,
        "acceptance": quotient(sum(one.accepted_tokens for one in stats), drafted),
        "tokens_per_second": decoded / sum(one.decode_seconds for one in stats),
        "plain_tokens_per_second": decoded / sum(one.decode_seconds for one in plain_stats),
    }
    return figures, recording.steps


def measure_replay(
    folder: Path,
    memory: str,
    steps: Sequence[Sequence[int]],
    *,
    trees: bool,
    count: int,
    rounds: int,
) -> dict[str, Any]:
    """Return seconds per token of a paged model, plain and with replayed draft tokens, in turns.

    Args:
        folder: the folder of the model.
        memory: its budget.
        steps: rows and tokens of each recorded step.
        trees: whether they were trees.
        count: steps that are replayed in a round.
        rounds: of one plain and one replayed text.
    """
    checkpoint = read_checkpoint(folder)
    # a step has one row more than draft tokens, and gives one token more than it accepts
    chosen = spread(sorted((rows - 1, tokens - 1) for rows, tokens in steps), count)
    replayed_tokens = sum(right + 1 for _, right in chosen)
    plain_tokens = max(2, count // 2)
    length = replayed_tokens * rounds + count
    context = length + 64
    text = _plain_text(Opener(checkpoint, LoadSettings(context=context, speculate="off")), length)
    replay = Replay(text, cycle(chosen), trees=trees)

    def make_replay(model: Any, tokenizer: Tokenizer, plan: Any) -> VerifyAll:
        return VerifyAll(replay, max_draft_tokens=max_draft_tokens(model), extra_row_cost=0.0)

    paged, _ = Opener(checkpoint, LoadSettings(memory=memory, context=context)).open(make_replay)
    seconds: dict[bool, list[float]] = {False: [], True: []}  # by whether there are draft tokens
    tokens_per_pass: list[float] = []
    with paged:
        place = 1
        for _ in range(rounds):
            for active, decoded in ((False, plain_tokens), (True, replayed_tokens)):
                replay.active = active
                replay.pattern = iter(chosen)
                # the prompt's pass gives the first token
                answer = paged.generate(text[:place], max_tokens=1 + decoded, reuse_cache=True)
                if [token.id for token in answer.tokens] != text[place : place + 1 + decoded]:
                    raise SystemExit("the text is another than that of plain decoding")
                seconds[active].append(answer.stats.decode_seconds / decoded)
                if active:
                    tokens_per_pass.append(decoded / answer.stats.decode_passes)
            place += 1 + replayed_tokens
    pairs = zip(seconds[False], seconds[True], strict=True)
    gain = statistics.median(plain / drafting for plain, drafting in pairs)
    recorded = statistics.mean(right + 1 for _, right in chosen)
    return {
        "model": str(folder),
        "memory": memory,
        "trees": trees,
        "pinned_layers": len(paged.plan.pinned),
        "layers": checkpoint.config.num_hidden_layers,
        "recorded_tokens_per_weight_pass": recorded,
        "tokens_per_weight_pass": statistics.median(tokens_per_pass),
        "plain_seconds_per_token": statistics.median(seconds[False]),
        "seconds_per_token": statistics.median(seconds[True]),
        "samples": {"plain": seconds[False], "drafted": seconds[True]},
        "gain": gain,
        "share_of_factor": gain / recorded,
    }


def _plain_text(opener: Opener, length: int) -> list[int]:
    """Return ids of a text of the model, the beginning-of-sequence token first."""
    resident, _ = opener.open()
    with resident:
        if not resident.plan.resident:
            raise SystemExit("the text is made by the model in memory, and there is too little")
        return [1, *(token.id or 0 for token in resident.stream([1], max_tokens=length + 8))]


def repeated_fraction(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return the fraction of an answer's tokens that end a run of four that came before.

    The run may have come before in the prompt or in the answer.
    """
    text = [*prompt, *answer]
    runs: set[tuple[int, ...]] = set()
    repeated = 0
    for end in range(RUN, len(text) + 1):
        run = tuple(text[end - RUN : end])
        repeated += end > len(prompt) and run in runs
        runs.add(run)
    return repeated / len(answer)


def spread(steps: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return ``count`` steps that stand for all, evenly spaced by how many tokens were right."""
    ordered = sorted(steps, key=lambda step: step[1])
    chosen = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
    # poor and good ones in turns
    return chosen[::2] + chosen[1::2]


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="stories")
    parser.add_argument("--draft", default="stories-draft")
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--paged", type=Path)
    parser.add_argument("--memory", nargs="+", default=["1.5GB"])
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    stories: Sequence[str] = STORIES
    if options.prompts:
        with options.prompts.open(encoding="utf-8") as lines:
            stories = [json.loads(line)["prompt"] for line in islice(lines, options.count)]
    opener = Opener(read_checkpoint(locate(options.model)), LoadSettings())
    draft = locate(options.draft)
    records: list[dict[str, Any]] = []
    # of the draft model and of token recycling on stories, as if every pass took as long
    recorded: list[list[list[int]]] = []
    cases: Sequence[tuple[str, Sequence[str], Path | Callable[[], Drafter], float]] = (
        ("stories", stories, draft, 0.0),
        ("stories", stories, RecyclingDrafter, 0.0),
        ("stories", stories, NGramDrafter, 0.0),
        ("repeating", REPEATING, RecyclingDrafter, REPEATED),
        ("repeating", REPEATING, NGramDrafter, REPEATED),
    )
    for name, prompts, drafter, min_repeated in cases:
        for slow in (True, False):
            figures, steps = measure(
                opener, prompts, options.tokens, drafter, slow=slow, min_repeated=min_repeated
            )
            records.append({"texts": name, **figures})
            if slow and len(recorded) < 2:
                recorded.append([step for step in steps if step[0] > 0])
            sys.stderr.write(f"{json.dumps(records[-1])}\n")
    document: dict[str, Any] = {"schema": 1, "environment": environment(), "records": records}
    if options.paged:
        document["paged"] = [
            measure_replay(
                options.paged,
                memory,
                steps,
                trees=trees,
                count=options.passes,
                rounds=options.rounds,
            )
            for memory in options.memory
            for trees, steps in zip((False, True), recorded, strict=True)
        ]
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
