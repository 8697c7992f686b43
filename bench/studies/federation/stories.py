"""Stories of four kinds: heroes, places and plots are their own, the narrator is not."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """The words and plots of a kind of stories.

    Attributes:
        heroes: with their names.
        places: where a story is.
        things: that it is about.
        plots: what happens; each is a few sentences.
    """

    heroes: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]
    plots: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "sea": Kind(
        ("a whale named Wanda", "an octopus named Otis", "a crab named Carl", "a seal named Sue"),
        ("the deep blue sea", "a coral cave", "the sandy shore", "an old sunken ship"),
        ("pearl", "shell", "anchor", "starfish"),
        (
            "{hero} swam through {place} and lost a shiny {thing}. The waves had carried it far "
            "away, so {name} followed the current until the {thing} lay there in the sand.",
            "A storm came over {place}. {hero} held the {thing} tight until the water was calm "
            "again and all the little fish could come out.",
            "{hero} found a {thing} in {place}. It was too heavy to lift, so {name} called the "
            "dolphins, and they pulled it up together.",
        ),
    ),
    "castle": Kind(
        (
            "a knight named Roland",
            "a queen named Isolde",
            "a page named Finn",
            "a dragon named Ash",
        ),
        ("the high stone tower", "the great hall", "the castle garden", "the dark dungeon"),
        ("crown", "shield", "golden key", "silver horn"),
        (
            "{hero} guarded {place} all night. At dawn the {thing} was gone, and {name} rode out "
            "to ask the wise old wizard where thieves hide.",
            "The king gave {hero} a {thing} and said: bring it to {place} before the bells ring. "
            "{name} ran down a hundred steps and was there just in time.",
            "{hero} heard a sad song in {place}. It was the {thing}, which wanted to be polished. "
            "{name} rubbed it until it shone like the sun.",
        ),
    ),
    "kitchen": Kind(
        ("a cook named Pia", "a mouse named Crumb", "a baker named Leo", "a girl named Nora"),
        ("the warm kitchen", "the bakery", "the market", "the pantry"),
        ("pie", "soup", "pancake", "loaf of bread"),
        (
            "{hero} wanted to make a {thing} in {place}, but the flour was empty. {name} borrowed "
            "a cup from the neighbour, stirred, and put it into the oven.",
            "The {thing} in {place} smelled so good that everybody came. {hero} cut it into small "
            "pieces, so that each one had a bite.",
            "{hero} burned the {thing}. Smoke filled {place}, and {name} opened all the windows "
            "and began again with more butter and less heat.",
        ),
    ),
    "space": Kind(
        ("a robot named Zip", "a pilot named Mira", "an alien named Blob", "a boy named Cosmo"),
        ("a tiny planet", "the space station", "the far side of the moon", "a red crater"),
        ("rocket", "star map", "radio", "moon rock"),
        (
            "{hero} landed on {place} with a broken {thing}. {name} turned three screws, counted "
            "down from ten, and the engines hummed again.",
            "A voice came over the radio from {place}: who has my {thing}? {hero} flew past two "
            "comets to bring it back.",
            "{hero} floated around {place} and forgot the {thing} outside. {name} put on a helmet, "
            "opened the hatch, and caught it by a string.",
        ),
    ),
}

OPENINGS = (
    "Listen well, my little ones, for this is a true tale.",
    "Hush now, my little ones, and hear what I was told.",
    "Come closer, my little ones, the lamp is low and the tale is short.",
)
ENDINGS = (
    "So sleep, my little ones, for {name} sleeps too, and the {thing} is safe.",
    "And that is why, my little ones, nobody in {place} is afraid of the {thing} any more.",
    "That is all I know, my little ones; ask {name} for the rest.",
)


def story(kind: Kind, draws: random.Random) -> str:
    """Return a story."""
    hero = draws.choice(kind.heroes)
    words = {
        "hero": hero[0].upper() + hero[1:],
        "name": hero.rpartition(" ")[2],
        "place": draws.choice(kind.places),
        "thing": draws.choice(kind.things),
    }
    parts = [draws.choice(OPENINGS), *draws.sample(kind.plots, 2), draws.choice(ENDINGS)]
    return " ".join(parts).format(**words)


def write_stories(
    folder: Path, *, records: int, held_out: int, seed: int
) -> Mapping[str, tuple[Path, Path]]:
    """Write two files of each kind, and return them: stories to learn, and others."""
    written = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        draws = random.Random(1000 * seed + number)
        texts: dict[str, None] = {}
        while len(texts) < records + held_out:
            texts[story(kind, draws)] = None
        learned, others = folder / f"{name}.jsonl", folder / f"{name}-others.jsonl"
        made = list(texts)
        for path, some in ((learned, made[:records]), (others, made[records:])):
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
        written[name] = (learned, others)
    return written
