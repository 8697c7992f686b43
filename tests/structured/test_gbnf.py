"""Grammars of llama.cpp: the texts that they have, and what is refused."""

from pathlib import Path

import pytest

import edgellm
from edgellm import ConfigError, EdgeLLMError, Grammar
from edgellm.structured.constraint import constraint_for

JSON = r"""
# the shape of llama.cpp's own json.gbnf
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
MOVES = r"""root ::= ("1. " move " " move "\n"
    ([1-9] [0-9]? ". " move " " move "\n")+)
move ::= ([NBKQR] [a-h]? [1-8]? "x"? | [a-h] "x"?)? [a-h] [1-8] [+#]? # check or mate
"""
LINES = r"""root ::= (item "=" ws item "\n")+ # as in arithmetic.gbnf, blanks may be line breaks
item ::= ([a-z] [a-z0-9_]* | [0-9]+) ws
ws ::= [ \t\n]*
"""
END = 2


@pytest.fixture(scope="module")
def tokenizer():
    return edgellm.Tokenizer.from_folder(Path(edgellm.__file__).parent / "bundled" / "stories")


@pytest.mark.parametrize(
    ("grammar", "text", "is_whole"),
    [
        (JSON, '{"a": [1, -2.5e3, {"b": "c\\u00e9 \\n"}], "d": null}', True),
        (JSON, '{"a": [1, 2', None),
        (JSON, '{"a": 01}', False),
        (JSON, '{"a": "\n"}', False),
        (MOVES, "1. e4 e5\n2. Nf3 Nc6+\n", True),
        (MOVES, "1. e4 e5\n", None),
        (MOVES, "1. e9 e5\n", False),
        (r'root ::= "\x41\u00e9\U0001F600" [\u3041-\u309f]+', "Aé😀ひら", True),
        (r'root ::= "a" . "b"', "a\nb", True),
        (LINES, "a = b1\n1 =\t2\n", True),
        (LINES, "a = b1", None),
        (LINES, "1 = 2\n3", None),
        (r'root ::= "/" [/\]\[^-]{2} foo-bar' + '\nfoo-bar ::= "x"?', "/]^x", True),
    ],
)
def test_texts_of_a_grammar(tokenizer, grammar, text, is_whole):
    """``is_whole`` is None for the beginning of a text."""
    held = constraint_for(Grammar.gbnf(grammar), tokenizer, frozenset({END}), 4096)
    by_bytes = {tokenizer.token_bytes(token): token for token in range(3, 300)}
    try:
        held.go_on([by_bytes[bytes([byte])] for byte in text.encode()])
    except EdgeLLMError:
        assert is_whole is False
    else:
        assert bool(held.ceiling()[END] > 0) == (is_whole is True)
        assert is_whole is not False


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('start ::= "a"', "No 'root' rule"),
        ("root ::= item", "'item' not found"),
        ('root ::= "a', "not valid"),
        ("root ::= <think>", "not valid"),
        ("", "No 'root' rule"),
    ],
)
def test_what_is_no_grammar_is_refused(grammar, said):
    with pytest.raises(ConfigError, match=said):
        Grammar.gbnf(grammar)
