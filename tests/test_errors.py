"""Errors hold no controls, whoever wrote the text that they quote."""

import pickle

import pytest

from edgellm.errors import ConfigError, EdgeLLMError, escape_controls

HOSTILE = "a\x1b]52;c;QQ==\x07b\x9b2Jc\rd\x08e\x7ff\x00g\x85h"
SHOWN = r"a\x1b]52;c;QQ==\x07b\x9b2Jc\rd\x08e\x7ff\x00g\x85h"


def test_a_message_and_its_hint_hold_no_controls():
    error = ConfigError(HOSTILE, hint=HOSTILE)
    assert (error.message, error.hint, str(error)) == (SHOWN, SHOWN, SHOWN)
    assert EdgeLLMError("plain").hint is None


def test_a_copy_of_an_error_is_the_same_error():
    error = ConfigError(HOSTILE, hint="b")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.hint, str(copy)) == (error.message, error.hint, str(error))


@pytest.mark.parametrize("text", ["", "a\tb\nc", "é界 \xa0\u202f", "\\x1b"])
def test_what_is_no_control_stays_as_it_is(text):
    assert escape_controls(text) == text


def test_every_control_but_newline_and_tab_is_shown():
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        shown = escape_controls(chr(code))
        assert shown.isprintable() or shown in "\t\n"


def test_a_file_name_that_is_no_utf_8_can_be_printed_anywhere():
    error = EdgeLLMError("there is no caf\udce9")
    assert str(error) == r"there is no caf\udce9"
    assert str(error).encode()
