"""Ways in which models run with an adapter beside their weights, and what they say."""

from support.paged import PROMPT

EXACT = {"activations": "float", "kv_bits": 32}
ARITHMETIC = {"mlx": {"backend": "mlx"}, "kernels": EXACT}


def greedy(llm, prompt=PROMPT, new=16):
    return [token.id for token in llm.generate(prompt, max_tokens=new).tokens]
