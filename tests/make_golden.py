"""Write tests/golden/*.json again: what transformers computes in float32 for the tiny models.

Needs torch.

python tests/make_golden.py
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from support import tiny
from support.paths import GOLDEN

PROMPT_TOKENS = 24
NEW_TOKENS = 64
POSITIONS = (0, 10, 23)
STRIDE = 5
GAP = 2e-3
"""How clearly the likeliest token must win at every step: far above the rounding of float32."""

BEAM_MODELS = ("llama-3.2", "mistral-window", "qwen3")
BEAM_ENDS = 24
"""End tokens of the models for beam search; that many, so that texts really end."""


def open_reference(folder):
    """The model as transformers computes it, without the shortcuts that round differently."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def reference_logits(model, ids):
    """Logits (L, V) after each of some tokens."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def reference_text(model, ids, new, **settings):
    """New tokens after ``ids``; settings are those of ``generate``."""
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0} | settings
    with torch.no_grad():
        # else the padding token, which may begin a prompt, is masked
        mask = torch.ones((1, len(ids)), dtype=torch.int64)
        out = model.generate(
            torch.tensor([ids]), attention_mask=mask, max_new_tokens=new, **settings
        )
    return out[0, len(ids) :].tolist()


def prompt_of(random, length):
    """A random prompt that begins as the tokenizer would."""
    return [tiny.BEGIN, *random.randint(len(tiny.SPECIALS), tiny.VOCABULARY, length - 1).tolist()]


def greedy_record(folder, name):
    """The first seed whose greedy text is clear, varied and endless; with its prompt's logits."""
    for seed in range(100):
        model = open_reference(
            tiny.write_model(
                folder / f"{name}-{seed}", tiny.CONFIGS[name], seed=seed, tokenizer=False
            )
        )
        prompt = prompt_of(np.random.RandomState(seed), PROMPT_TOKENS)
        text = reference_text(model, prompt, NEW_TOKENS)
        logits = reference_logits(model, prompt + text[:-1])
        best = np.sort(logits[len(prompt) - 1 :], axis=-1)
        if (best[:, -1] - best[:, -2]).min() > GAP and len(set(text)) > 20 and tiny.END not in text:
            rows = logits[list(POSITIONS), ::STRIDE]
            numbers = [[round(float(value), 6) for value in row] for row in rows]
            known = {"stride": STRIDE, "logits": dict(zip(POSITIONS, numbers, strict=True))}
            return {"seed": seed, "prompt": prompt, "greedy": text} | known
    raise SystemExit(f"no seed gives a clear text for {name}")


def beam_records(folder, name):
    """Texts by beam search, with and without a repetition penalty."""
    ends = sorted(
        np.random.RandomState(7).choice(tiny.VOCABULARY, BEAM_ENDS, replace=False).tolist()
    )
    config = tiny.CONFIGS[name] | {"eos_token_id": ends}
    model = open_reference(tiny.write_model(folder / name, config, tokenizer=False))
    texts = []
    for number, (beams, penalty) in enumerate([(2, 1.0), (4, 1.0), (4, 1.3), (5, 1.0), (3, 1.0)]):
        prompt = prompt_of(np.random.RandomState(number), 3 + 4 * number)
        settings = {
            "num_beams": beams,
            "length_penalty": 1.0,
            "early_stopping": False,
            "repetition_penalty": penalty,
        }
        text = reference_text(model, prompt, 20, eos_token_id=[tiny.END, *ends], **settings)
        texts.append(
            {"prompt": prompt, "beams": beams, "repetition_penalty": penalty, "text": text}
        )
    return {"eos_token_id": ends, "texts": texts}


def write(name, record):
    """Write one golden file, its numbers on few lines."""
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"{name}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def main():
    """Write them all."""
    with tempfile.TemporaryDirectory() as folder:
        for name in tiny.CONFIGS:
            write(name, greedy_record(Path(folder), name))
        write("beams", {name: beam_records(Path(folder) / "beams", name) for name in BEAM_MODELS})


if __name__ == "__main__":
    main()
