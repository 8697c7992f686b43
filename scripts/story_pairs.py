"""Make preferences of stories: how each goes on, and how another one does.

    python scripts/story_pairs.py STORIES.txt FOLDER

STORIES.txt is TinyStories' text, whose stories stand apart by <|endoftext|> or by empty lines.
FOLDER gets ``train.jsonl`` of 240 pairs and ``held_out.jsonl`` of 80 others. All answers are true
sentences, so that only what fits together can be learned.
"""

import argparse
import json
import random
import re
from pathlib import Path

TRAINED, HELD_OUT = 240, 80
ASKED, ANSWERED = 3, 2
"""Sentences of a prompt and of an answer."""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="STORIES.txt", type=Path)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    given = parser.parse_args()
    source, folder = given.source, given.folder
    rows = []
    for story in re.split(r"<\|endoftext\|>|\n\n\n+", source.read_text(encoding="utf-8")):
        sentences = re.split(r"(?<=[.!?])\s+", story.strip().replace("\n", " "))
        if len(story) > 300 and len(sentences) > ASKED + ANSWERED:
            answer = sentences[ASKED : ASKED + ANSWERED]
            rows.append((" ".join(sentences[:ASKED]), " " + " ".join(answer)))
    random.Random(0).shuffle(rows)
    pairs = [
        {"prompt": prompt, "chosen": answer, "rejected": rows[(place + 1) % len(rows)][1]}
        for place, (prompt, answer) in enumerate(rows[: TRAINED + HELD_OUT])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", pairs[:TRAINED]), ("held_out", pairs[TRAINED:])):
        lines = "".join(json.dumps(pair) + "\n" for pair in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
