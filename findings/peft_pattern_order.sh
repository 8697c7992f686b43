#!/bin/sh
# PEFT 0.21.2 (PyPI): the order of alpha_pattern and rank_pattern counts, and saving an adapter
# sorts it, so that an adapter with overlapping patterns computes otherwise once it is loaded again.
#
# One would expect: an adapter that was saved and loaded gives the logits that it gave when it was
# trained.
#
# What happens: of several patterns that match a module the first one is taken, in the order of the
# dictionary; save_pretrained writes adapter_config.json with sort_keys=True, and ".*_proj" comes
# before "v_proj". The scale of v_proj is then another one, without a word.
#
# Output seen (x86-64, Python 3.11, peft 0.21.2, transformers 5.24.0, torch 2.13.0):
#   trained with {'v_proj': 4, '.*_proj': 64}: scale of v_proj 1.0
#   saved and loaded again:                    scale of v_proj 16.0
#   largest difference of the logits           0.4
#
# For users: make patterns that do not overlap; of a file with overlapping ones nobody can tell any
# more what it was trained with.
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
PATTERNS = {"v_proj": 4, ".*_proj": 64}


def base():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4,
    )
    return transformers.LlamaForCausalLM(config).eval()


def scale(model):
    return model.base_model.model.model.layers[0].self_attn.v_proj.scaling["default"]


settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], alpha_pattern=PATTERNS)
model = peft.get_peft_model(base(), settings).eval()
ids = torch.arange(16)[None]
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) / 10)
    model.save_pretrained("adapter")
    again = peft.PeftModel.from_pretrained(base(), "adapter").eval()
    difference = float((model(ids).logits - again(ids).logits).abs().max())
print(f"trained with {PATTERNS}: scale of v_proj {scale(model)}")
print(f"saved and loaded again:                    scale of v_proj {scale(again)}")
print(f"largest difference of the logits           {difference:.1f}")
assert (scale(model), scale(again)) == (1.0, 16.0), "the finding is out of date"
PYTHON
