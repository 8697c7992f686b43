"""Adapters that PEFT and mlx-lm make, merged by us and by them."""

from real_world import templates
from real_world.kinds.llama2 import LLAMA2
from real_world.kinds.llama3 import LLAMA3, llama3_files
from real_world.kinds.packed import llama2, mistral
from real_world.kinds.qwen import QWEN2, qwen_files
from real_world.pieces import piece_model
from real_world.release import Built, piece_files, release, write

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tied_llama3():
    files, ids, of = llama3_files(templates.LLAMA31, end="<|eot_id|>")
    return LLAMA3 | ids | {"eos_token_id": of("<|eot_id|>"), "tie_word_embeddings": True}, files


def small_llama2():
    files, size = piece_files(piece_model(), template=templates.LLAMA2)
    return LLAMA2 | {"vocab_size": size}, files


def small_qwen2():
    files, ids = qwen_files(templates.CHATML)
    return QWEN2 | ids | {"tie_word_embeddings": False}, files


def by_peft(name, model, **settings):
    def build(path, peers):
        config, files = model()
        base = write(path.parent / "base", config, files, dtype="float32")
        peers.ask("transformers", train=str(base), to=str(path), settings=settings)
        return Built(path=base, adapter=path, runs=False, settings={"adapter": path})

    release(name, "adapter", by_peers=True)(build)


by_peft(
    "LoRA of queries and values",
    small_llama2,
    r=8,
    lora_alpha=16,
    target_modules=["q_proj", "v_proj"],
)
by_peft(
    "LoRA of all matrices by one word", small_qwen2, r=4, lora_alpha=16, target_modules="all-linear"
)
by_peft("rsLoRA", small_llama2, r=16, lora_alpha=8, target_modules=ALL, use_rslora=True)
by_peft("DoRA", small_llama2, r=4, lora_alpha=8, target_modules=ALL, use_dora=True)
by_peft(
    "LoRA with ranks and alphas by pattern",
    small_llama2,
    r=4,
    lora_alpha=8,
    target_modules=ALL,
    rank_pattern={r"layers\.0\..*q_proj": 2, "down_proj": 6},
    alpha_pattern={r".*\.1\.mlp\..*": 32, r"^model\.layers\.0\.self_attn\.v_proj$": 3},
)
by_peft(
    "LoRA of some layers",
    small_llama2,
    r=4,
    lora_alpha=8,
    target_modules=["q_proj", "o_proj"],
    layers_to_transform=[1],
    layers_pattern="layers",
)
by_peft(
    "LoRA with embedding and head brought whole",
    small_llama2,
    r=4,
    lora_alpha=8,
    target_modules=["q_proj"],
    modules_to_save=["embed_tokens", "lm_head"],
)
by_peft(
    "LoRA with a tied head brought whole",
    tied_llama3,
    r=4,
    lora_alpha=8,
    target_modules=["q_proj"],
    modules_to_save=["lm_head"],
)
by_peft(
    "LoRA with rows of single tokens",
    small_qwen2,
    r=4,
    lora_alpha=8,
    target_modules=["v_proj"],
    trainable_token_indices={"embed_tokens": [3, 7, 600]},
)
by_peft(
    "LoRA of the embedding",
    small_llama2,
    r=4,
    lora_alpha=8,
    target_modules=["embed_tokens", "q_proj"],
)


def by_mlx_lm(name, model, kind):
    def build(path, peers):
        config, files = model()
        base = write(path.parent / "base", config, files, dtype="float32")
        peers.ask("mlx-lm", train=str(base), to=str(path), kind=kind)
        return Built(path=base, adapter=path, runs=False, settings={"adapter": path})

    release(name, "adapter", oracle="mlx-lm", by_peers=True)(build)


by_mlx_lm("LoRA of mlx-lm", mistral, "lora")
by_mlx_lm("DoRA of mlx-lm", llama2, "dora")
