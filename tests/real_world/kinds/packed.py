"""What GPTQ, AWQ, compressed-tensors, float8 and bitsandbytes leave, packed by the published layouts.

transformers opens the numbers that the packing was made of, in float32: it has no kernels for most
of these without further packages.
"""

from functools import partial

from support.packed_models import (
    awq_parts,
    bitsandbytes_parts,
    compressed_parts,
    float8_parts,
    gptq_parts,
    int8_parts,
)

from real_world import templates
from real_world.kinds.llama2 import LLAMA2
from real_world.kinds.llama3 import LLAMA3, llama3_files
from real_world.kinds.mistral import MISTRAL, OLD
from real_world.kinds.qwen import QWEN2, QWEN3, THINKING, TOOLS, qwen_files
from real_world.packed import write_packed
from real_world.pieces import piece_model
from real_world.release import piece_files, release

WIDE = {"hidden_size": 256, "intermediate_size": 512}
GPTQ = {
    "bits": 4,
    "damp_percent": 0.1,
    "desc_act": False,
    "group_size": 128,
    "model_file_base_name": "model",
    "model_name_or_path": None,
    "quant_method": "gptq",
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
}
AWQ = {
    "bits": 4,
    "group_size": 128,
    "modules_to_not_convert": None,
    "quant_method": "awq",
    "version": "gemm",
    "zero_point": True,
}
PLAIN = "theirs is the float32 model that the packing was made from"


def llama2():
    files, size = piece_files(piece_model(), template=templates.LLAMA2)
    return LLAMA2 | WIDE | {"vocab_size": size}, files


def mistral():
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    window = {"sliding_window": None, "rope_theta": 1000000.0}
    return MISTRAL | WIDE | window | {"vocab_size": size}, files


def llama3():
    files, ids, of = llama3_files(templates.LLAMA31, end="<|eot_id|>")
    return LLAMA3 | WIDE | ids | {"eos_token_id": of("<|eot_id|>")}, files


def qwen2():
    files, ids = qwen_files(templates.QWEN25, TOOLS)
    return QWEN2 | WIDE | ids | {"tie_word_embeddings": False}, files


def qwen3():
    files, ids = qwen_files(templates.QWEN3, [*TOOLS, *THINKING])
    return QWEN3 | WIDE | ids, files


def add(name, model, block, parts, **settings):
    def build(path):
        config, files = model()
        return write_packed(path, config, files, block, parts, **settings)

    note = PLAIN
    if settings.get("by_itself"):
        note = "transformers dequantizes it"
    release(name, "quantizer", note=note)(build)


add("Llama 2 GPTQ 4 bits in 128", llama2, GPTQ, gptq_parts)
add(
    "Qwen2.5 GPTQ Int8",
    qwen2,
    GPTQ | {"bits": 8},
    partial(gptq_parts, bits=8),
)
add(
    "Mistral GPTQ in activation order",
    mistral,
    GPTQ | {"desc_act": True, "group_size": 128},
    partial(gptq_parts, shuffled=True),
    as_it_is=0.3,
)
add(
    "Llama 3.1 GPTQModel, version 2, with zero points",
    llama3,
    GPTQ
    | {
        "checkpoint_format": "gptq_v2",
        "lm_head": False,
        "meta": {"quantizer": ["gptqmodel:2.0.0"], "damp_auto_increment": 0.0025},
        "pack_dtype": "int32",
        "sym": False,
    },
    partial(gptq_parts, version="gptq_v2", symmetric=False),
)
add("Mistral 7B Instruct AWQ", mistral, AWQ, awq_parts)
add("Qwen2.5 7B Instruct AWQ", qwen2, AWQ, awq_parts)
add(
    "Qwen3 FP8, blocks of 128",
    qwen3,
    {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
    | {"weight_block_size": [128, 128]},
    partial(
        float8_parts,
        part="weight_scale_inv",
        shape=lambda outputs, inputs: (-(-outputs // 128), -(-inputs // 128)),
    ),
    dtype="bfloat16",
    as_it_is=0.15,
    by_itself=True,
)


def group(**weights):
    """A group of compressed-tensors' config."""
    usual = {"actorder": None, "block_structure": None, "dynamic": False, "observer": "minmax"}
    return {
        "group_0": {
            "input_activations": None,
            "output_activations": None,
            "targets": ["Linear"],
            "weights": usual | {"observer_kwargs": {}} | weights,
        }
    }


COMPRESSED = {
    "global_compression_ratio": 1.5,
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
}
add(
    "Llama 3.1 quantized.w4a16",
    llama3,
    COMPRESSED
    | {
        "config_groups": group(
            group_size=128, num_bits=4, strategy="group", symmetric=True, type="int"
        ),
        "format": "pack-quantized",
    },
    partial(compressed_parts, bits=4, group=128, symmetric=True),
    dtype="bfloat16",
    by_itself=True,
    within=2e-3,
)
add(
    "Llama 3.1 FP8 dynamic",
    llama3,
    COMPRESSED
    | {
        "config_groups": group(
            group_size=None, num_bits=8, strategy="channel", symmetric=True, type="float"
        ),
        "format": "float-quantized",
    },
    partial(float8_parts, part="weight_scale", shape=lambda outputs, inputs: (outputs, 1)),
    dtype="bfloat16",
    as_it_is=0.15,
    by_itself=True,
)
add(
    "Qwen2.5 quantized.w8a8",
    qwen2,
    COMPRESSED
    | {
        "config_groups": group(
            group_size=None, num_bits=8, strategy="channel", symmetric=True, type="int"
        ),
        "format": "int-quantized",
    },
    partial(int8_parts, part="weight_scale"),
    dtype="bfloat16",
    by_itself=True,
)
NF4 = {
    "_load_in_4bit": True,
    "_load_in_8bit": False,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": True,
    "load_in_8bit": False,
    "quant_method": "bitsandbytes",
}
add(
    "Llama 3.1 bnb 4 bit, nested nf4",
    llama3,
    NF4,
    partial(bitsandbytes_parts, kind="nf4", nested=True, storage="U8"),
    dtype="bfloat16",
    as_it_is=0.3,
)
