"""A group of commands from a table."""

import sys

import typer

from edgellm.cli.command_group import CommandEntry, CommandGroup


def test_a_command_is_imported_when_it_is_called(tmp_path, monkeypatch, capsys):
    module = "def greet(name: str): print('hello', name)\n"
    (tmp_path / "late_commands.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    class Group(CommandGroup):
        table = {"greet": CommandEntry("Says hello.", target="late_commands:greet")}  # noqa: RUF012

    app = typer.Typer(cls=Group, rich_markup_mode=None)
    app.callback()(lambda: None)
    app(["--help"], standalone_mode=False)
    assert "greet  Says hello." in capsys.readouterr().out
    assert "late_commands" not in sys.modules
    app(["greet", "you"], standalone_mode=False)
    assert capsys.readouterr().out == "hello you\n"
    sys.modules.pop("late_commands")
