"""Thinking in a reply: the texts that mark it, what switches it, and how it is parted off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from edgellm.chat_template.render_process import TemplateNames
from edgellm.errors import TemplateError

SWITCHES = ("enable_thinking", "thinking")
"""Variables that switch thinking: Qwen's and most others'; Granite's and DeepSeek's."""

GIVEN = {"messages", "add_generation_prompt", "template", "self"}
"""Names that nobody may set."""

USUAL = GIVEN | {"tools", "documents", "bos_token", "eos_token", "unk_token", "pad_token"}
"""Names that need no mention where a template's variables are listed."""


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around the thinking that a reply begins with.

    Attributes:
        start: comes before it, in the reply or at the end of the prompt.
        end: comes after it.
        answers: pairs of texts around the answer that follows; the second may be empty.
    """

    start: str
    end: str
    answers: tuple[tuple[str, str], ...] = ()

    def texts(self) -> list[str]:
        """Return all of them."""
        return [self.start, self.end, *(text for pair in self.answers for text in pair)]


KNOWN = (
    Markers("<think>", "</think>", (("<answer>", "</answer>"), ("<response>", "</response>"))),
    Markers("[THINK]", "[/THINK]"),  # Mistral
    Markers(  # gpt-oss
        "<|channel|>analysis<|message|>",
        "<|end|>",
        (
            ("<|start|>assistant<|channel|>final<|message|>", ""),
            ("<|channel|>final<|message|>", ""),
        ),
    ),
    Markers("<thought>", "</thought>"),  # EXAONE Deep
    Markers("<seed:think>", "</seed:think>"),
    Markers(  # Cohere
        "<|START_THINKING|>", "<|END_THINKING|>", (("<|START_RESPONSE|>", "<|END_RESPONSE|>"),)
    ),
    Markers("<|channel>thought", "<channel|>"),  # Gemma 4
    Markers("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    Markers("<longcat_think>", "</longcat_think>"),
    Markers("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)


def find_markers(template: str, is_token: Callable[[str], bool]) -> Markers | None:
    """Return the markers that a template writes or that are tokens, None where there are none."""
    for markers in KNOWN:
        if markers.start in template or (is_token(markers.start) and is_token(markers.end)):
            answers = tuple(pair for pair in markers.answers if pair[0] in template)
            return replace(markers, answers=answers)
    return None


def template_variables(
    names: TemplateNames, *, think: bool | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a template is to be given.

    Args:
        names: those that it reads.
        think: whether the model is to think; None leaves it to the template.
        given: variables by their names.

    Raises:
        TemplateError: it reads no such variable, or has no switch for thinking.
    """
    listed = ", ".join(sorted(names.variables - USUAL)) or "none"
    for name in given:
        if name not in names.variables - GIVEN:
            raise TemplateError(
                f"the chat template has no variable {name!r}", hint=f"its variables are: {listed}"
            )
    if think is None:
        return dict(given)
    for name in SWITCHES:
        if name in names.variables:
            return {name: think, **given}
    raise TemplateError(
        "the chat template has no switch for thinking",
        hint=f"leave out --think, --no-think or think=; its variables are: {listed}",
    )


def visible_reply(
    message: Mapping[str, Any], names: TemplateNames, markers: Markers
) -> Mapping[str, Any]:
    """Return a message with thinking as a template wants it.

    One that cuts the thinking out by itself gets the whole text. All others get the answer alone,
    with the thinking beside it, to which they may or may not look.
    """
    thinking = message.get("reasoning_content")
    reads_it = not names.words.isdisjoint(("reasoning_content", "thinking", "reasoning"))
    if thinking is None or reads_it or markers.end not in names.words:
        return message
    text = f"{markers.start}\n{thinking}\n{markers.end}\n\n{message['content']}"
    return {"role": message["role"], "content": text}


class _Stage(Enum):
    BEGIN = auto()
    THINKING = auto()
    BETWEEN = auto()
    ANSWER = auto()
    MARKED_ANSWER = auto()
    END = auto()


class ThinkingFilter:
    """Parts a reply, piece by piece, into thinking and answer; shows no marker, nor half of one.

    Thinking stands at the begin of a reply: a marker that comes later is text.

    Args:
        markers: the texts around it.
        opened: whether the prompt has ended with its start.
        hidden: special tokens, which are never shown.

    Attributes:
        thought: whether there is, or was, any thinking.
    """

    def __init__(self, markers: Markers, *, opened: bool, hidden: Collection[str] = ()) -> None:
        self._markers = markers
        self._hidden = [token for token in hidden if token]
        self._held = ""
        self._answer_end = ""
        self._is_blank = True  # nothing of a text between markers has been shown yet
        self._stage = _Stage.THINKING if opened else _Stage.BEGIN
        self.thought: bool = opened

    @property
    def thinking(self) -> bool:
        """Whether the answer has not begun yet, and thinking has."""
        return self._stage is _Stage.THINKING

    def add(self, text: str) -> tuple[str, str]:
        """Return what is sure by now of the thinking and of the answer.

        Args:
            text: what comes next, special tokens as they are written.
        """
        self._held += text
        thinking, answer = "", ""
        stage = None
        while stage is not self._stage:
            stage = self._stage
            match stage:
                case _Stage.BEGIN:
                    self._begin()
                case _Stage.THINKING:
                    thinking += self._until(self._markers.end, _Stage.BETWEEN)
                case _Stage.BETWEEN:
                    self._begin_answer()
                case _Stage.MARKED_ANSWER:
                    answer += self._until(self._answer_end, _Stage.END)
                case _Stage.ANSWER:
                    answer += self._held
                    self._held = ""
                case _Stage.END:
                    self._held = ""
        return self._shown(thinking), self._shown(answer)

    def finish(self, *, whole: bool) -> str:
        """Return what was held back of the answer; nothing of one that was cut off in a marker."""
        held, self._held = self._held, ""
        if not whole or self._stage is _Stage.THINKING:
            return ""
        if self._stage is _Stage.MARKED_ANSWER:
            held = held.rstrip()
        return self._shown(held)

    def _begin(self) -> None:
        start = self._markers.start
        text = self._held.lstrip()
        if text.startswith(start):
            self._held = text[len(start) :]
            self._stage = _Stage.THINKING
            self.thought = True
        elif not start.startswith(text):
            self._stage = _Stage.BETWEEN

    def _until(self, end: str, following: _Stage) -> str:
        """Return what is sure of a text that ends at a marker, without blanks around it."""
        place = self._held.find(end)
        if place >= 0:
            text = self._held[:place].rstrip()
            self._held = self._held[place + len(end) :]
            self._stage = following
        else:
            # blanks at its end wait: they are shown between words only
            text = self._held[: len(self._held) - begun(self._held, end)].rstrip()
            self._held = self._held[len(text) :]
        if self._is_blank:
            text = text.lstrip()
            self._is_blank = not text
        return text

    def _begin_answer(self) -> None:
        text = self._held.lstrip()
        for start, end in self._markers.answers:
            if text.startswith(start):
                self._held = text[len(start) :]
                self._stage = _Stage.ANSWER
                if end:
                    self._answer_end = end
                    self._is_blank = True
                    self._stage = _Stage.MARKED_ANSWER
                return
        if any(start.startswith(text) for start, _ in self._markers.answers):
            return
        if self.thought:
            self._held = text
        if text:
            self._stage = _Stage.ANSWER

    def _shown(self, text: str) -> str:
        for token in self._hidden:
            text = text.replace(token, "")
        return text


def begun(text: str, marker: str) -> int:
    """Return the length of the longest end of a text that a marker begins with."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
