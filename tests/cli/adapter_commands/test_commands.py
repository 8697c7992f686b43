"""``edgellm adapter``: its commands in this process."""

import json

import pytest
from support.adapters import LLAMA
from support.lora_files import SOME, dora_adapter, peft_adapter, products, tuned_model
from support.tiny import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "base", LLAMA)
    peft_adapter(folder / "adapter", base_model_name_or_path=str(folder / "base"))
    peft_adapter(folder / "other", SOME[:4], rank=6)
    dora_adapter(folder / "dora")
    tuned_model(folder / "base", folder / "tuned", products(folder / "adapter"))
    return folder


def test_info_is_a_table_and_a_document(run, folder):
    code, out, err = run("adapter", "info", folder / "adapter")
    assert (code, err) == (0, "")
    assert "LoRA, as PEFT stores it" in out
    assert "12 matrices in 4 layers (0-3)" in out
    assert "self_attn.q_proj      4" in out
    code, out, _ = run("adapter", "info", folder / "dora", "--json")
    assert json.loads(out)["kind"] == "DoRA"
    code, _, err = run("adapter", "info", folder / "base")
    assert code == 1
    assert "has no adapter_config.json" in err


def test_svd_shows_ranks_a_plot_and_a_sentence(run, folder, tmp_path):
    tuned, base = folder / "tuned", folder / "base"
    page = tmp_path / "page.html"
    code, out, _ = run(
        "adapter", "svd", tuned, "--base", base, "--matrix", "0.self_attn.q_proj",
        "--output", page,
    )  # fmt: skip
    assert code == 0
    assert "relative error\n 1.00 |" in out
    assert "of the energy\n" in out
    assert "<svg" in page.read_text()
    assert "model.layers.0.self_attn.q_proj" in page.read_text()
    code, out, _ = run("adapter", "svd", folder / "adapter", "--json")
    facts = json.loads(out)
    assert [item["matrix"] for item in facts["matrices"]] == SOME
    assert facts["relative_errors"][0] == 1.0
    assert facts["ranks"].keys() == {"0.9", "0.95", "0.99"}
    code, out, _ = run("adapter", "svd", folder / "adapter", "--output", page)
    assert "all together" in page.read_text()
    assert "3.mlp.down_proj" in out
    code, _, err = run("adapter", "svd", folder / "adapter", "--output", "page.pdf")
    assert code == 2
    assert "ends in .html" in err


def test_extract_merge_and_convert_say_what_they_made(run, folder, tmp_path):
    out = tmp_path / "out"
    code, text, err = run("adapter", "extract", folder / "tuned", folder / "base", out)
    assert code == 0
    assert "3.mlp.down_proj" in text
    assert "100% of the energy" in err
    assert "16 matrices the same" in err
    code, text, _ = run(
        "adapter", "merge", out, folder / "other", tmp_path / "sum", "--rank", 4, "--json"
    )
    assert code == 0
    assert json.loads(text)["relative_error"] > 0
    code, _, err = run(
        "adapter", "merge", out, folder / "other", tmp_path / "exact", "--weights", "1,0.5"
    )
    assert code == 0
    assert err.rstrip().endswith("exact")
    code, _, err = run("adapter", "merge", out, out, tmp_path / "x", "--weights", "1,half")
    assert (code, "'1,half'" in err) == (2, True)
    for form, name in (("mlx-lm", "mlx"), ("gguf", "file.gguf")):
        code, _, err = run(
            "adapter", "convert", folder / "adapter", tmp_path / name, "--format", form
        )
        assert code == 0, err
        assert "12 changes" in err
    code, _, err = run("export", folder / "base", tmp_path / "all.gguf", "--adapter", out)
    assert code == 0
    assert "the adapter has changed 12 tensors, unquantized here; 100% of its change is left" in err
    assert "; nothing else has changed" in err
    code, _, err = run("export", folder / "base", tmp_path / "plain.gguf")
    assert (code, "; none of them has changed" in err) == (0, True)
    code, _, err = run("adapter", "convert", out, tmp_path / "y", "--format", "mlx")
    assert code == 2
    assert "one of peft, mlx-lm, gguf" in err
