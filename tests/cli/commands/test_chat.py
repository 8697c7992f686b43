"""`edgellm chat`: what is checked before a model is loaded."""

import json
import shutil


def test_chat_asks_for_a_chat_template_before_it_loads(run, model, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    code, out, err = run("chat", str(plain), "--memory", "1KB")  # which loading would refuse
    assert (code, out) == (1, "")
    assert err.startswith("error: plain has no chat template")
