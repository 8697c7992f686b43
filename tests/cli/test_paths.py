"""Names that no file can have: an error and a next step in every command that takes one."""

import pytest

COMMANDS = {
    "info": ["info", "NAME"],
    "plan": ["plan", "NAME"],
    "draft": ["plan", "MODEL", "--draft", "NAME"],
    "verify": ["verify", "NAME"],
    "generate": ["generate", "NAME", "-p", "x"],
    "prompt file": ["generate", "MODEL", "--prompt-file", "NAME"],
    "chat": ["chat", "NAME"],
    "doctor": ["doctor", "NAME"],
    "convert": ["convert", "NAME", "EMPTY/made"],
    "destination": ["convert", "MODEL", "NAME"],
    "adapter": ["convert", "MODEL", "EMPTY/made", "--adapter", "NAME"],
    "tokenizer": ["convert", "MODEL", "EMPTY/made", "--tokenizer", "NAME"],
    "export": ["export", "NAME", "EMPTY/made.gguf"],
    "export to": ["export", "MODEL", "NAME"],
    "bench": ["bench", "NAME"],
    "bench disk": ["bench", "disk", "NAME"],
    "bench compare": ["bench", "compare", "NAME", "NAME"],
    "bench rate": ["bench", "rate", "NAME"],
}


@pytest.fixture(params=["too long", "too long a path", "a loop", "through a file", "no home"])
def name(request, tmp_path):
    """A name under which nothing can be."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = {
        "too long": tmp_path / ("a" * 300),
        "too long a path": "b/" * 3000,
        "a loop": tmp_path / "loop",
        "through a file": tmp_path / "file" / "below",
        "no home": "~nobody-of-this-name/model",
    }
    return str(names[request.param])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_cannot_be_is_refused_with_a_next_step(run, model, tmp_path, name, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    words = [
        word.replace("NAME", name).replace("MODEL", model).replace("EMPTY", str(empty))
        for word in COMMANDS[command]
    ]
    code, out, err = run(*words)
    assert (code in {1, 2}, out) == (True, "")
    assert err.startswith("error: ")
    assert "\n\nhint: " in err
    assert list(empty.iterdir()) == []
