"""GGUF out, and in again: codes, config, tokenizers, and what is lost is said."""

import json
from dataclasses import replace

import gguf
import mlx.core as mx
import numpy as np
import pytest
from support.gguf_files import SAMPLE_TEXTS, WIDE, arrays, write_gguf
from support.tiny import CONFIGS, TEMPLATE, write_model
from support.tiny_families import CONFIGS as OTHERS
from support.tiny_tokenizers import LLAMA as PIECES
from support.tiny_tokenizers import write_pieces

import edgellm
from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters import convert, export
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf_export.model_metadata import architecture_of
from edgellm.converters.tensors.file_rows import read_span
from edgellm.errors import ConversionError, UnsupportedModelError
from edgellm.tokenizer import Tokenizer


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ("qwen3-biases",)])
def test_a_model_goes_out_and_comes_back(tmp_path, name):
    source = write_model(
        tmp_path / "model",
        CONFIGS[name],
        dtype=mx.float16,
        generation_config={"eos_token_id": [1, 3]},
    )
    export(source, tmp_path / "out.gguf")
    convert(tmp_path / "out.gguf", tmp_path / "back", bits=16)
    before, after = arrays(source), arrays(tmp_path / "back")
    for tensor, values in after.items():
        assert np.array_equal(before[tensor], values), tensor
    config = ModelConfig.from_dict(json.loads((tmp_path / "back" / "config.json").read_text()))
    own = ModelConfig.from_dict(CONFIGS[name])
    for field in (
        "hidden_size",
        "head_dim",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
    ):
        assert getattr(config, field) == getattr(own, field)
    assert config.tie_word_embeddings == own.tie_word_embeddings
    assert config.eos_token_ids == {1, 3}
    first, second = (Tokenizer.from_folder(folder) for folder in (source, tmp_path / "back"))
    for text in SAMPLE_TEXTS:
        assert first.encode(text) == second.encode(text)
    assert second.chat_template == TEMPLATE
    assert second.eos_token_ids == first.eos_token_ids


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 5])
def test_four_and_five_bits_keep_their_codes_both_ways(tmp_path, bits, group_size):
    source = write_model(tmp_path / "model", WIDE, dtype=mx.float16)
    convert(source, tmp_path / "ours", bits=bits, group_size=group_size)
    report = export(tmp_path / "ours", tmp_path / "out.gguf")
    assert report.errors == {}
    assert report.kinds == {f"Q{bits}_1": 2 + 7 * 2}
    convert(tmp_path / "out.gguf", tmp_path / "back")
    before, after = (
        mx.load(str(tmp_path / folder / "model-layer-00001.safetensors"))
        for folder in ("ours", "back")
    )
    for name, values in before.items():
        if name.endswith(".weight") and values.ndim == 2:
            assert mx.array_equal(values, after[name]), name
    back = arrays(tmp_path / "back")
    for name, values in arrays(tmp_path / "ours").items():
        assert np.array_equal(values, back[name]), name


@pytest.mark.parametrize("kind", ["MXFP4", "NVFP4", "Q1_0"])
def test_types_that_mlx_has_itself_come_in_and_go_out_as_they_are(tmp_path, kind):
    write_gguf(tmp_path / "in.gguf", WIDE, kinds=lambda name: kind)
    report = convert(tmp_path / "in.gguf", tmp_path / "made")
    mode = kind.lower()
    if kind == "Q1_0":
        mode = "affine"
    assert report.quantization.mode == mode
    assert report.errors is None
    out = export(tmp_path / "made", tmp_path / "out.gguf")
    assert out.kinds == {kind: 16}
    assert out.errors == {}
    before, after = (open_gguf(tmp_path / name).tensors for name in ("in.gguf", "out.gguf"))
    for name, tensor in before.items():
        other = after[name]
        assert (tensor.kind, tensor.shape) == (other.kind, other.shape)
        if tensor.kind == kind:  # norms are rounded to the model's one type
            pieces = [read_span(each.file, each.offset, each.nbytes) for each in (tensor, other)]
            assert np.array_equal(*pieces), name
    edgellm.load(tmp_path / "made", backend="mlx").close()


def ternary_kind(name):
    """One of the two types that hold three numbers."""
    return "TQ1_0" if "mlp" in name else "TQ2_0"


def ternary_blocks(kind, rows, columns, seed):
    """Blocks of -d, 0 and d, written by the gguf library, with a scale for each row."""
    random = np.random.RandomState(seed)
    values = random.randint(-1, 2, (rows, columns)) * random.uniform(0.01, 0.05, (rows, 1))
    return gguf.quants.quantize(values.astype(np.float32), gguf.GGMLQuantizationType[kind])


def test_ternary_models_go_out_in_two_bits(tmp_path):
    config = WIDE | {"num_hidden_layers": 1}
    write_gguf(tmp_path / "in.gguf", config, kinds=ternary_kind, blocks=ternary_blocks)
    convert(tmp_path / "in.gguf", tmp_path / "made")
    out = export(tmp_path / "made", tmp_path / "out.gguf")
    assert out.kinds == {"TQ2_0": 9}
    assert out.errors == {}
    before, after = (open_gguf(tmp_path / name).tensors for name in ("in.gguf", "out.gguf"))
    for name, tensor in before.items():
        values = [
            gguf.quants.dequantize(
                read_span(each.file, each.offset, each.nbytes).reshape(each.shape[0], -1),
                gguf.GGMLQuantizationType[each.kind],
            )
            for each in (tensor, after[name])
            if each.kind.startswith("TQ")
        ]
        assert not values or np.array_equal(*values), name


@pytest.mark.parametrize("bits", [1, 2])
def test_small_codes_with_other_biases_go_out_as_numbers(tmp_path, bits):
    source = write_model(tmp_path / "model", WIDE, dtype=mx.float16)
    convert(source, tmp_path / "ours", bits=bits, group_size=128)
    assert export(tmp_path / "ours", tmp_path / "out.gguf").kinds == {"F16": 16}


def test_what_eight_bits_and_others_lose_is_said(tmp_path):
    source = write_model(tmp_path / "model", WIDE, dtype=mx.bfloat16)
    convert(source, tmp_path / "eight", bits=8)
    report = export(tmp_path / "eight", tmp_path / "eight.gguf")
    assert report.kinds == {"Q8_0": 16}
    assert len(report.errors) == 16
    assert all(0.001 < error < 0.01 for error in report.errors.values())
    convert(tmp_path / "eight.gguf", tmp_path / "back")
    again = export(tmp_path / "back", tmp_path / "again.gguf")  # now without biases of its own
    assert again.errors == {}
    first, second = (open_gguf(tmp_path / name) for name in ("eight.gguf", "again.gguf"))
    for name, tensor in first.tensors.items():
        bytes_of = [
            file.read_bytes()[place.offset : place.offset + place.nbytes]
            for file, place in (
                (tensor.file, tensor),
                (second.tensors[name].file, second.tensors[name]),
            )
        ]
        assert bytes_of[0] == bytes_of[1], name
    convert(source, tmp_path / "three", bits=3)
    report = export(tmp_path / "three", tmp_path / "three.gguf")
    assert report.kinds == {"F16": 16}
    assert all(error < 1e-3 for error in report.errors.values())


def test_a_written_file_is_what_the_gguf_library_reads(tmp_path):
    import gguf

    source = write_model(tmp_path / "model", CONFIGS["llama-3.1"], dtype=mx.float16)
    export(source, tmp_path / "out.gguf")
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert reader.get_field("llama.attention.head_count_kv").contents() == 2
    assert reader.get_field("tokenizer.ggml.model").contents() == "gpt2"
    assert len(reader.get_field("tokenizer.ggml.tokens").contents()) == 320
    mine = open_gguf(tmp_path / "out.gguf").tensors
    assert {tensor.name: tensor.data_offset for tensor in reader.tensors} == {
        name: tensor.offset for name, tensor in mine.items()
    }


def test_a_name_that_llama_cpp_asks_tokens_for_is_kept_where_they_are_there(tmp_path):
    """It reads Phi-3's special tokens where a name says so, and fails without them."""
    folder = write_model(tmp_path / "my-Phi-3-tune", CONFIGS["llama-1"])
    export(folder, tmp_path / "out.gguf")
    assert gguf_name_of(tmp_path / "out.gguf") == "model"
    raw = json.loads((folder / "tokenizer.json").read_text())
    for number, text in enumerate(["</s>", "<unk>", "<s>", "<|endoftext|>"]):
        raw["added_tokens"].append(raw["added_tokens"][0] | {"id": 312 + number, "content": text})
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    export(folder, tmp_path / "again.gguf")
    assert gguf_name_of(tmp_path / "again.gguf") == "my-Phi-3-tune"


def gguf_name_of(path):
    return gguf.GGUFReader(path).fields["general.name"].contents()


def test_sentencepiece_goes_out_and_comes_back(tmp_path):
    source = write_model(tmp_path / "model", WIDE, dtype=mx.float16, tokenizer=False)
    write_pieces(source, PIECES | {"legacy": True})
    export(source, tmp_path / "out.gguf")
    convert(tmp_path / "out.gguf", tmp_path / "back")
    first, second = (Tokenizer.from_folder(folder) for folder in (source, tmp_path / "back"))
    for text in [*SAMPLE_TEXTS, "<|user|>Hello<|end|>"]:
        assert first.encode(text) == second.encode(text)
    assert (first.bos_token_id, first.eos_token_ids) == (second.bos_token_id, second.eos_token_ids)
    assert second.chat_template == first.chat_template
    assert first.vocab_size == second.vocab_size


def test_an_export_keeps_what_is_there_and_leaves_nothing_half_made(tmp_path):
    source = write_model(tmp_path / "model", CONFIGS["llama-2"], dtype=mx.float16)
    export(source, tmp_path / "out.gguf")
    before = (tmp_path / "out.gguf").read_bytes()
    with pytest.raises(ConversionError, match="already exists"):
        export(source, tmp_path / "out.gguf")

    def stop(step):
        if step.bytes_done > step.bytes_total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "out.gguf", force=True, progress=stop)
    assert (tmp_path / "out.gguf").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.gguf"]
    export(source, tmp_path / "out.gguf", force=True)
    assert (tmp_path / "out.gguf").read_bytes() == before
    with pytest.raises(ConversionError, match="is a folder"):
        export(source, tmp_path, force=True)


def test_the_command_says_what_it_made_and_what_changed(tmp_path, capsys):
    from edgellm.cli.app import main

    source = write_model(tmp_path / "model", WIDE, dtype=mx.float16)
    convert(source, tmp_path / "eight", bits=8)
    assert main(["export", str(tmp_path / "eight"), str(tmp_path / "out.gguf"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["matrices"] == {"Q8_0": 16}
    assert document["file_bytes"] == (tmp_path / "out.gguf").stat().st_size
    assert document["errors"].keys() >= {"lm_head", "model.layers.0.self_attn.q_proj"}
    assert main(["export", str(tmp_path / "eight"), str(tmp_path / "out.gguf")]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "eight"), str(tmp_path / "out.gguf"), "--force"]) == 0
    shown = capsys.readouterr()
    assert "lm_head" in shown.out
    assert "16 in Q8_0" in shown.err
    assert main(["export", str(tmp_path / "out.gguf"), str(tmp_path / "other.gguf")]) == 1
    assert "edgellm convert" in capsys.readouterr().err


def test_scales_that_float16_rounds_keep_their_codes_and_say_the_error(tmp_path):
    source = write_model(tmp_path / "model", WIDE, dtype=mx.float32)
    convert(source, tmp_path / "ours", bits=4)  # float32 scales
    report = export(tmp_path / "ours", tmp_path / "out.gguf")
    assert report.kinds == {"Q4_1": 16}
    assert len(report.errors) == 16
    assert all(0 < error < 1e-3 for error in report.errors.values())
    convert(tmp_path / "out.gguf", tmp_path / "back")
    before, after = (
        mx.load(str(tmp_path / folder / "model-layer-00000.safetensors"))
        for folder in ("ours", "back")
    )
    assert mx.array_equal(
        before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"]
    )
    values, rounded = arrays(tmp_path / "ours"), arrays(tmp_path / "back")
    name = "model.layers.0.mlp.up_proj"
    change = np.sqrt(np.square(rounded[f"{name}.weight"] - values[f"{name}.weight"]).sum())
    assert change / np.sqrt(np.square(values[f"{name}.weight"]).sum()) == pytest.approx(
        report.errors[name], rel=1e-2
    )


def test_a_family_that_llama_cpp_would_compute_otherwise_is_refused():
    config = replace(ModelConfig.from_dict(CONFIGS["llama-2"]), model_type="gemma")
    with pytest.raises(UnsupportedModelError, match="gemma"):
        architecture_of(config)


@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning")
@pytest.mark.parametrize("name", ["gemma3", "olmo3", "smollm3"])
def test_a_family_goes_out_and_comes_back(tmp_path, name):
    """Norms, windows, both rotary bases and layers without any mean the same."""
    source = write_model(tmp_path / "model", OTHERS[name] | {"query_pre_attn_scalar": 24})
    export(source, tmp_path / "out.gguf")
    convert(tmp_path / "out.gguf", tmp_path / "back", bits=16)
    ids = np.random.RandomState(1).randint(5, 300, 24).tolist()
    logits = []
    for folder in (source, tmp_path / "back"):
        with edgellm.load(folder, context=64) as llm:
            logits.append(np.array(llm.logits(ids)))
    assert np.array_equal(*logits)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gemma2", {}, "query_pre_attn_scalar like 20"),
        ("gemma3", {"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 24}, "no soft cap"),
        ("gemma3-new", {"query_pre_attn_scalar": 24}, "a pattern that comes again"),
        ("smollm3-window", {}, "every fourth layer"),
        ("olmo3-new", {}, "one rotary base"),
        ("olmo2", {"tie_word_embeddings": True}, "a head of its own"),
        ("exaone4", {"head_dim": 16}, "where there are 64 layers"),
        ("exaone4-full", {}, "96 here and 64"),
        ("hunyuan-yarn", {}, "no such biases"),
    ],
)
def test_what_llama_cpp_takes_for_granted_of_a_family_is_asked_first(name, change, said):
    config = ModelConfig.from_dict(spelled(OTHERS[name] | change, {}).config)
    with pytest.raises(UnsupportedModelError, match=said):
        architecture_of(config)
