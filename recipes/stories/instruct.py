"""Make instruction records of plain stories, in Alpaca's form: a request, an input, an answer.

    python instruct.py --data FOLDER --out FOLDER
    edgellm train stories FOLDER/train.jsonl ADAPTER --valid FOLDER/valid.jsonl --epochs 5 --on all

The data folder holds tinystories_train.txt and tinystories_valid.txt. The bundled model answers
nearly everything with a story; after five epochs it says who a story is about, what is in it, and
goes on with it by a sentence.
"""

import argparse
import json
import random
import re
from pathlib import Path

from corpus import NOUNS, read_stories

WHO = (
    "Who is the story about?",
    "Tell me who this story is about.",
    "Name the one that the story is about.",
)
THINGS = (
    "Which things and animals are in the story?",
    "Name things and animals of the story.",
    "What is in the story?",
)
CONTINUE = (
    "Continue the story with one sentence.",
    "Write the next sentence of the story.",
    "Go on with the story by a sentence.",
)
IS_THERE = ("Is there a {0} in the story?", "Does the story have a {0}?")

NAMED = re.compile(r"\b[Aa]n? (?:[a-z]+ ){1,3}?named [A-Z][a-z]+\b")
SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"']?")


def joined(names: list[str]) -> str:
    """``a dog, a ball and a tree``."""
    said = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    if len(said) == 1:
        return said[0]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def record_of(story: str, rng: random.Random) -> dict | None:
    """One record of a story's beginning, or None where it has nothing that is asked."""
    sentences = [one.strip() for one in SENTENCE.findall(story.replace("\n", " "))]
    count = rng.choice((2, 3))
    if len(sentences) <= count or len(" ".join(sentences[: count + 1])) > 300:
        return None
    beginning = " ".join(sentences[:count])
    words = re.findall(r"[a-z]+", beginning.lower())
    nouns = sorted({word for word in words if word in NOUNS}, key=words.index)
    kind = rng.choice(("who", "things", "continue", "there"))
    if kind == "who" and (named := NAMED.search(beginning)):
        who = named[0][0].lower() + named[0][1:]
        return {"instruction": rng.choice(WHO), "input": beginning, "output": f"It is about {who}."}
    if kind == "things" and nouns:
        answer = f"There is {joined(nouns[:3])}."
        return {"instruction": rng.choice(THINGS), "input": beginning, "output": answer}
    if kind == "continue":
        instruction = rng.choice(CONTINUE)
        return {"instruction": instruction, "input": beginning, "output": sentences[count]}
    if kind == "there" and nouns:
        is_there = rng.random() < 0.5
        noun = rng.choice(nouns) if is_there else rng.choice([n for n in NOUNS if n not in words])
        answer = f"Yes, there is a {noun}." if is_there else f"No, there is no {noun}."
        return {
            "instruction": rng.choice(IS_THERE).format(noun),
            "input": beginning,
            "output": answer,
        }
    return None


def records(stories: list[str], count: int, seed: int) -> list[dict]:
    """As many records, each of another story; the same seed makes the same ones."""
    rng = random.Random(seed)
    made = []
    for story in rng.sample(stories, len(stories)):
        if len(made) == count:
            break
        record = record_of(story, rng)
        if record is not None:
            made.append(record)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--valid", type=int, default=200)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", args.records), ("valid", args.valid)):
        stories = read_stories(args.data / f"tinystories_{part}.txt")
        lines = [json.dumps(record) + "\n" for record in records(stories, count, seed=0)]
        (args.out / f"{part}.jsonl").write_text("".join(lines))
        print(f"{len(lines)} records in {args.out / part}.jsonl")


if __name__ == "__main__":
    main()
