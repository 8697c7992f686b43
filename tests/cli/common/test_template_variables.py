"""Variables of chat templates on the command line: JSON where it is some, else text."""

import pytest

from edgellm.cli.common.template_variables import parse_template_variables
from edgellm.errors import ConfigError


def test_values_are_json_or_text():
    options = ["a=true", "b=3", 'c={"d": [null]}', "e=26 Jul", "f=", "g=x=y", "h=NaN", 'i="3"']
    assert parse_template_variables(options) == {
        "a": True,
        "b": 3,
        "c": {"d": [None]},
        "e": "26 Jul",
        "f": "",
        "g": "x=y",
        "h": "NaN",
        "i": "3",
    }
    assert parse_template_variables(None) == {}
    deep = "[" * 100_000
    assert parse_template_variables([f"a={deep}"]) == {"a": deep}


@pytest.mark.parametrize("option", ["", "a", "=1"])
def test_other_forms_are_refused(option):
    with pytest.raises(ConfigError, match="is not NAME=VALUE"):
        parse_template_variables([option])
