"""`edgellm info`: the table of a model."""


def test_info_is_a_table_that_a_pipe_gets_whole(run, model):
    code, out, err = run("info", model)
    assert (code, err) == (0, "")
    assert out.startswith(f"{model}\n")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert rows["type"] == "llama"
    assert rows["layers"].endswith("KB")
    assert "with a chat template" in rows["tokenizer"]
    assert not any(line.endswith(" ") for line in out.splitlines())
