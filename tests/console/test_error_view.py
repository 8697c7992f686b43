"""Errors as a person sees them."""

from edgellm.console import error_view
from edgellm.errors import EdgeLLMError


def test_what_a_stranger_wrote_is_not_taken_for_markup(capsys):
    error_view.show_error(EdgeLLMError("[bold]x[/] :smile: \\[", hint="[link=y]z"))
    assert capsys.readouterr().err == "error: [bold]x[/] :smile: \\[\n\nhint: [link=y]z\n"
