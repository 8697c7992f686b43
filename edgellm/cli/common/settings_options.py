"""Options that fill a settings class: declared once, handed to commands as one object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args

from typer import Option

from edgellm.cli.common.values import Values, one_of

Returned = TypeVar("Returned")


def option(
    kind: Any,
    metavar: str | None,
    help_text: str,
    *flags: str,
    heading: str | None = None,
    values: Values | None = None,
) -> Any:
    """Return an option of this type; without ``flags`` it is called as its field is.

    Args:
        kind: the type.
        metavar: stands for the value in help.
        help_text: a sentence.
        flags: what it is called.
        heading: of the options among which help shows it.
        values: completes a value; default: the words of ``metavar``.
    """
    return Annotated[
        kind,
        Option(
            *flags,
            metavar=metavar,
            help=help_text,
            rich_help_panel=heading,
            autocompletion=values or one_of(metavar),
        ),
    ]


@dataclass(frozen=True)
class SettingsOptions:
    """The options for some fields of a settings class.

    Attributes:
        settings: a dataclass; an option's default is its field's.
        options: what ``option`` returns for each field, in the order in which help shows them.
        defaults: where the command line has others than the class.
    """

    settings: type
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def only(self, *names: str) -> SettingsOptions:
        """Return the options of these fields alone."""
        return replace(self, options={name: self.options[name] for name in names})

    def without(self, *names: str) -> SettingsOptions:
        """Return the options of all other fields."""
        return self.only(*(name for name in self.options if name not in names))

    def under(self, heading: str) -> SettingsOptions:
        """Return the same options under another heading of help."""
        return replace(
            self,
            options={name: _under(one, heading) for name, one in self.options.items()},
        )

    def with_defaults(self, **defaults: Any) -> SettingsOptions:
        """Return the same options with some defaults of their own."""
        return replace(self, defaults={**self.defaults, **defaults})

    def parameters(self) -> list[inspect.Parameter]:
        """Return the options as keyword parameters of a command."""
        defaults = {item.name: item.default for item in fields(self.settings)}
        defaults.update(self.defaults)
        return [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation
            )
            for name, annotation in self.options.items()
        ]

    def take_from(self, values: dict[str, Any]) -> Any:
        """Remove the options' values from ``values``, and return the settings that they make."""
        given = {name: values.pop(name) for name in self.options}
        # None: left out, and the settings class knows what that means
        return self.settings(**{name: value for name, value in given.items() if value is not None})


def expand_settings(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """Turn each parameter that is ``Annotated[SETTINGS, SettingsOptions]`` into its options.

    Typer sees a command with a parameter for every option; the command gets the settings, filled
    and checked.
    """
    groups: dict[str, SettingsOptions] = {}
    parameters: list[inspect.Parameter] = []
    signature = inspect.signature(command, eval_str=True)
    for parameter in signature.parameters.values():
        group = _options_of(parameter)
        if group is None:
            parameters.append(parameter)
        else:
            groups[parameter.name] = group
            parameters += group.parameters()

    @wraps(command)
    def expanded(**values: Any) -> Returned:
        settings = {name: group.take_from(values) for name, group in groups.items()}
        return command(**values, **settings)

    # Typer reads the signature and, for names that it has to resolve, the annotations.
    expanded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {item.name: item.annotation for item in parameters}
    return expanded


def _options_of(parameter: inspect.Parameter) -> SettingsOptions | None:
    """Return the options that a parameter stands for; None for one that is an option itself."""
    for note in get_args(parameter.annotation)[1:]:
        if isinstance(note, SettingsOptions):
            return note
    return None


def _under(annotation: Any, heading: str) -> Any:
    kind, option_info = get_args(annotation)
    option_info = copy(option_info)
    option_info.rich_help_panel = heading
    return Annotated[kind, option_info]
