#!/bin/sh
# litgpt 0.5.13 (PyPI): yarn, as rope_adjustments with beta_fast and beta_slow, stretches the pairs
# that it should leave alone, and leaves alone those that it should stretch.
#
# One would expect (Peng et al. 2023, arXiv:2309.00071, section 3.2, and transformers): a pair that
# turns often within the first context keeps its frequency, one that turns less than once has its
# frequency divided by the factor.
#
# What happens: build_rope_cache blends the two sets of frequencies with the ramp the other way
# round. The fastest pair is 32 times slower than in transformers, the slowest 32 times faster. Nor
# is the default factor of the attention (0.1 ln(factor) + 1) there, unless mscale is given.
#
# Output seen (x86-64, Python 3.11, litgpt 0.5.13, transformers 5.24.0, torch 2.13.0):
#   pair  plain        transformers  litgpt
#      0  1.000000000  1.000000000   0.031249998
#     63  0.000115478  0.000003609   0.000115478
#
# For users: a model with yarn that LitGPT has run or trained computes otherwise in any other
# program, and one that others have trained computes otherwise in LitGPT.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    litgpt==0.5.13 torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps \
    transformers==5.24.0 huggingface-hub==2.4.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
from litgpt.model import build_rope_cache
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

YARN = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0}
config = LlamaConfig(
    hidden_size=256,
    num_attention_heads=2,
    max_position_embeddings=131072,
    rope_parameters={
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 4096,
        **YARN,
    },
)
theirs, _ = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
cos, sin = build_rope_cache(2, 128, extra_config={"original_max_seq_len": 4096, **YARN})
litgpt = torch.atan2(sin[1], cos[1])[:64]
plain = 1 / 10000 ** (torch.arange(0, 128, 2) / 128)
print("pair  plain        transformers  litgpt")
for pair in (0, 63):
    print(f"{pair:4}  {plain[pair]:.9f}  {theirs[pair]:.9f}   {litgpt[pair]:.9f}")
kept, stretched = litgpt[63] / plain[63], litgpt[0] / plain[0]
assert abs(theirs[0] - plain[0]) < 1e-6, "the finding is out of date"
assert abs(kept - 1) < 1e-3 and abs(stretched * 32 - 1) < 1e-3, "the finding is out of date"
PYTHON
