"""The commands and programs that README.md and docs/*.md show, and what each says that it needs."""

import re
from dataclasses import dataclass, field

from support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
SPAN = re.compile(r"`((?:edgellm|python -m edgellm\S+) [^`\n]*|python -m edgellm\S*)`")
PLACEHOLDER = re.compile(r"\[|\.\.\.|\\\||\b[A-Z]{2,}\b")
NEEDS = re.compile(r"\b[Nn]eeds? (?P<things>[^.;:|()#]*)")


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        text: as a person would type it, its comment left out.
        needs: what the page says that it needs.
    """

    text: str
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Block:
    """What a page shows in one place.

    Attributes:
        page: its file's name.
        line: where it begins.
        language: ``console``, ``bash``, ``python``, ``text``, or ``span`` for a command in a
            sentence or table.
        text: all of it.
        commands: those of it that are typed into a shell.
        needs: what is said beforehand that all of it needs.
    """

    page: str
    line: int
    language: str
    text: str
    commands: list[Command] = field(default_factory=list)
    needs: frozenset[str] = frozenset()

    @property
    def title(self):
        return f"{self.page}:{self.line}"


def blocks_of(page):
    """Return the fenced blocks of a page, and the commands that stand in its sentences.

    A command in a sentence counts where it could be typed as it is: ``edgellm export`` only names
    one, and a word in capitals, brackets or dots make it a pattern.
    """
    text = page.read_text(encoding="utf-8")
    found = [_fenced(page.name, text, match) for match in FENCE.finditer(text)]
    prose = FENCE.sub(lambda match: "\n" * match.group(0).count("\n"), text)
    for match in SPAN.finditer(prose):
        names_a_command = len(match.group(1).split()) < 3
        if names_a_command or PLACEHOLDER.search(match.group(1)):
            continue
        line = _line_at(prose, match.start())
        command = _command_that_needs(match.group(1), line)
        found.append(Block(page.name, _number(prose, match.start()), "span", line, [command]))
    return sorted(found, key=lambda block: block.line)


def needs_in(text):
    """Return what a text says that is needed: ``needs torch and a GPU`` gives two things."""
    things = [match.group("things") for match in NEEDS.finditer(text)]
    return frozenset(
        thing.strip() for part in things for thing in re.split(r",| and ", part) if thing.strip()
    )


def _fenced(page, text, match):
    before = text[: match.start()].rstrip("\n")
    above = before.rpartition("\n")[2]
    language, body = match.group("language"), match.group("text")
    commands = []
    if language == "console":
        lines = re.findall(r"^ *\$ (.*)$", body.replace("\\\n", " "), re.MULTILINE)
        commands = [_command(line) for line in lines]
    elif language == "bash":
        lines = body.replace("\\\n", " ").splitlines()
        commands = [_command(line) for line in lines if line.strip()]
    line = _number(text, match.start())
    return Block(page, line, language, body, commands, needs_in(above))


def _command(line):
    text, mark, comment = line.partition(" #")
    return _command_that_needs(text.strip(), mark + comment)


def _command_that_needs(text, said):
    """Return a command; one for a cluster says by itself that it needs other machines."""
    needs = needs_in(said)
    if re.search(r"edgellm cluster |edgellm federate |--(machines|peers) ", text):
        needs |= {"other machines"}
    return Command(text, needs)


def _number(text, place):
    return text.count("\n", 0, place) + 1


def _line_at(text, place):
    begin = text.rfind("\n", 0, place) + 1
    return text[begin : text.find("\n", place)]
