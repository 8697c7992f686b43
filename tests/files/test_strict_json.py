"""Foreign text in messages."""

import numpy as np

from edgellm.files.strict_json import quoted


def test_what_is_quoted_is_one_printable_line():
    for value in ("a\x1b[2J\nb", "é" * 1000, np.arange(100).reshape(10, 10), {"a": ["\x00"]}, ""):
        text = quoted(value)
        assert text.isprintable()
        assert text.isascii()
        assert len(text) <= 100


def test_a_number_of_thousands_of_digits_is_quoted_too():
    assert quoted(10**5000) == "a number of thousands of digits"
