"""`edgellm convert`: what is made, and said of it."""

import json
import os
import signal

from support import tiny

from edgellm import converters


def test_convert_then_info_and_plan(run, model, tmp_path):
    made = tmp_path / "made"
    code, out, err = run(
        "convert", model, made, "--bits", 8, "--group-size", 32, "--json", "--report"
    )
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["quantization"] == {"group_size": 32, "bits": 8, "mode": "affine"}
    assert set(document["errors"].values()) != {0.0}

    facts = json.loads(run("info", made, "--json")[1])
    assert facts["quantization"]["bits"] == 8
    assert facts["num_hidden_layers"] == tiny.LAYERS
    assert facts["bytes"]["total"] == sum(
        facts["bytes"][part] for part in ("embedding", "layers", "norm", "head")
    )
    assert facts["bytes"]["total"] == document["weight_bytes"]
    assert facts["tokenizer"]["chat_template"] is True

    planned = json.loads(run("plan", made, "--context", 64, "--memory", "100MB", "--json")[1])
    assert planned["resident"] is True
    assert planned["layers"] == len(planned["pinned"]) == tiny.LAYERS
    assert planned["tokens_per_second"] > 0


def test_convert_says_what_it_made_and_does_not_replace_it(run, model, tmp_path):
    made = tmp_path / "made"
    code, out, err = run("convert", model, made)
    assert (code, out) == (0, "")
    assert str(made) in err
    assert "4 bits in groups of" in err
    assert f"; next: edgellm chat {made}\n" in err
    code, out, err = run("convert", model, made)
    assert (code, out) == (1, "")
    assert (
        err
        == f"error: {made} already exists\n\nhint: name another one, or replace it with --force\n"
    )
    code, out, _ = run("convert", model, made, "--force", "--report")
    assert code == 0
    assert "model.layers.0.mlp.down_proj" in out


def test_ctrl_c_says_that_the_same_command_goes_on(run, model, tmp_path, monkeypatch):
    quantize = converters.convert

    def interrupted(*arguments, progress, **settings):
        def report(step):
            progress(step)
            os.kill(os.getpid(), signal.SIGINT)

        return quantize(*arguments, progress=report, **settings)

    monkeypatch.setattr(converters, "convert", interrupted)
    code, _, err = run("convert", model, tmp_path / "made")
    assert code == 130
    assert err == "what is done is kept: the same command continues from here\ninterrupted\n"
    monkeypatch.undo()
    assert run("convert", model, tmp_path / "made")[0] == 0
