"""Options that fill a settings class."""

from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer

from edgellm.cli.common.options import LOAD_OPTIONS, SAMPLING_OPTIONS
from edgellm.cli.common.settings_options import SettingsOptions, expand_settings, option
from edgellm.settings import LoadSettings, Sampling


@dataclass(frozen=True)
class Oven:
    """Settings with a default of each kind."""

    degrees: int = 180
    shelf: str | None = None
    tins: tuple[str, ...] = ("round",)


OPTIONS = SettingsOptions(
    Oven,
    {
        "degrees": option(int, "N", "How hot.", "--heat"),
        "shelf": option(str | None, None, "Which."),
        "tins": option(list[str] | None, "NAME", "Each.", "--tin"),
    },
    defaults={"tins": None},
)


FOR_PYTHON = (
    "logits_processors",
    "logits_processor",
    "logit_bias",
    "top_logprobs",
    "prompt_logprobs",
)


def run(options, *words):
    """Return the settings that a command with these options gets of a command line."""
    got = []
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @expand_settings
    def bake(
        name: str, *, oven: Annotated[Oven, options], minutes: Annotated[int, typer.Option()] = 5
    ) -> None:
        got.extend([name, oven, minutes])

    app([*words], standalone_mode=False)
    return got


def test_options_left_out_keep_the_defaults_of_the_settings():
    assert run(OPTIONS, "cake") == ["cake", Oven(), 5]


def test_options_fill_the_settings_among_other_parameters():
    words = (
        "cake",
        "--heat",
        "200",
        "--shelf",
        "top",
        "--tin",
        "a",
        "--tin",
        "b",
        "--minutes",
        "7",
    )
    assert run(OPTIONS, *words) == ["cake", Oven(200, "top", ["a", "b"]), 7]


def test_a_command_may_have_fewer_options_and_defaults_of_its_own():
    assert run(OPTIONS.without("shelf").with_defaults(degrees=90), "cake")[1] == Oven(90)
    assert list(OPTIONS.only("shelf").options) == ["shelf"]
    with pytest.raises(typer.TyperException):
        run(OPTIONS.only("shelf"), "cake", "--heat", "200")


def test_help_shows_options_where_the_settings_stand(capsys):
    assert run(OPTIONS, "--help") == [], "nothing is baked"
    text = capsys.readouterr().out
    places = [text.index(name) for name in ("--heat", "--shelf", "--tin", "--minutes")]
    assert places == sorted(places)
    assert "[default: 180]" in text


@pytest.mark.parametrize(
    ("settings", "options", "elsewhere"),
    [
        # log-probabilities are an option beside --json, grammars have options of their own, beams
        # one of the sampling's; the rest is for Python
        (Sampling, SAMPLING_OPTIONS, {"logprobs", "grammar", *FOR_PYTHON}),
        (LoadSettings, LOAD_OPTIONS, {"prefill_chunk", "beams"}),
    ],
)
def test_every_setting_has_its_option(settings, options, elsewhere):
    assert set(options.options) | elsewhere == {item.name for item in fields(settings)}
