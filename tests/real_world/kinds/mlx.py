"""Folders that mlx-lm itself quantizes, beside mlx-lm."""

from real_world.kinds.packed import llama2, llama3, mistral, qwen2, qwen3
from real_world.release import Built, release, write


def add(name, model, **settings):
    def build(path, peers):
        config, files = model()
        source = write(path.parent / "source", config, files)
        peers.ask("mlx-lm", quantize=str(source), to=str(path), settings=settings)
        return Built(path=path)

    release(name, "quantizer", oracle="mlx-lm", by_peers=True)(build)


add("mlx-community Llama 3.1 4bit", llama3, q_bits=4, q_group_size=64)
add("mlx-community Qwen3 8bit", qwen3, q_bits=8, q_group_size=64)
add("mlx-community Mistral 3bit in 32", mistral, q_bits=3, q_group_size=32)
add("mlx-community Qwen2.5 6bit", qwen2, q_bits=6, q_group_size=64)
add("mlx-community Llama 2 mixed_4_6, a null group", llama2, quant_predicate="mixed_4_6")
add("mlx-community Qwen3 mixed_3_6", qwen3, quant_predicate="mixed_3_6")
add("mlx-community Llama 3.1 mxfp4", llama3, q_mode="mxfp4", q_bits=4, q_group_size=32)
add("mlx-community Mistral nvfp4", mistral, q_mode="nvfp4", q_bits=4, q_group_size=16)
add("mlx-community Qwen3 mxfp8", qwen3, q_mode="mxfp8", q_bits=8, q_group_size=32)
add("Bonsai, 1 bit", qwen3, q_bits=1, q_group_size=128)
