#!/bin/sh
# PEFT 0.21.2 (PyPI): merging a LoRA of an embedding that is the head too adds the change to the one
# matrix that both share, once for each of them; with ensure_weight_tying, whose change is meant to
# be one, it is there twice in the merged model.
#
# One would expect: merge_and_unload returns a model that computes what the PEFT model computes, as
# it does for every other target and for modules_to_save of the same two matrices (which it unties).
#
# What happens: the embedding and lm_head are wrapped each for itself, and the layers beneath hold
# one parameter. As trained, the embedding looks up W + BA and the head multiplies by W (plain), or
# by W + BA (ensure_weight_tying). Merging adds BA to W in place for each wrapped layer: the head
# becomes W + BA where it was W, and both become W + 2 BA where both were W + BA. A warning says that
# merging "can lead to complications".
#
# Output seen (x86-64, Python 3.11, peft 0.21.2, transformers 5.24.0, torch 2.13.0):
#   modules_to_save=[lm_head]:         largest difference of the merged model's logits 0.0000
#   LoRA of embed_tokens:              largest difference of the merged model's logits 23.0586
#   LoRA of both, ensure_weight_tying: largest difference of the merged model's logits 6.5776
#                                      the matrix moved by 2.00 times the trained change
#
# For users: untie the base first (the warning shows how), or merge by hand from the adapter's file.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    peft==0.21.2 transformers==5.24.0 torch==2.13.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import warnings

import peft
import torch
import transformers

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
TIED = {"target_modules": ["embed_tokens"]}
CASES = {
    "modules_to_save=[lm_head]": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "LoRA of embed_tokens": TIED,
    "LoRA of both, ensure_weight_tying": TIED | {"ensure_weight_tying": True},
}
found = {}
for case, settings in CASES.items():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
    )
    base = transformers.LlamaForCausalLM(config).eval()
    weight = base.model.embed_tokens.weight.detach().clone()
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 10)
        ids = torch.arange(16)[None]
        trained = model(ids).logits
        change = None
        if "ensure" in case:
            layer = model.get_input_embeddings()
            change = layer.get_delta_weight("default").clone()
        merged = model.merge_and_unload()
        found[case] = float((merged(ids).logits - trained).abs().max())
        print(f"{case + ':':34} largest difference of the merged model's logits {found[case]:.4f}")
        if change is not None:
            moved = merged.get_input_embeddings().weight - weight
            times = float((moved * change).sum() / (change * change).sum())
            print(f"{'':34} the matrix moved by {times:.2f} times the trained change")
            assert abs(times - 2) < 0.01, "the change is merged once: the finding is out of date"
assert found["modules_to_save=[lm_head]"] < 1e-4
assert found["LoRA of embed_tokens"] > 0.01, "merged as trained: the finding is out of date"
PYTHON
