#!/bin/sh
# litgpt 0.5.13 (PyPI): yarn, as rope_adjustments with beta_fast and beta_slow, stretches the pairs
# that it should leave alone, and leaves alone those that it should stretch.
#
# One would expect (Peng et al. 2023, arXiv:2309.00071, section 3.2; transformers 5.24.0 computes
# it so): a pair that turns more than beta_fast times within the first context keeps its frequency,
# and one that turns less than beta_slow times has it divided by the factor.
#
# What happens: build_rope_cache blends the two sets of frequencies with the ramp the other way
# round. The fastest pair is as many times too slow as the slowest one is too fast.
#
# Output seen (x86-64, Python 3.11, litgpt 0.5.13, torch 2.13.0):
#   pair  turns   plain        expected     litgpt
#      0  651.90  1.000000000  1.000000000  0.031249998
#     63    0.08  0.000115478  0.000003609  0.000115478
#
# For users: a model with yarn that LitGPT has run or trained computes otherwise in any other
# program, and one that others have trained computes otherwise in LitGPT.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check litgpt==0.5.13 torch==2.13.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import math

import torch
from litgpt.model import build_rope_cache

FACTOR, FIRST_CONTEXT = 32.0, 4096
YARN = {"factor": FACTOR, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_seq_len": FIRST_CONTEXT}
cos, sin = build_rope_cache(2, 128, extra_config=YARN)
litgpt = torch.atan2(sin[1], cos[1])[:64].tolist()
found = []
print("pair  turns   plain        expected     litgpt")
for pair in (0, 63):
    plain = 10000 ** (-2 * pair / 128)
    turns = FIRST_CONTEXT * plain / (2 * math.pi)
    expected = plain if turns > YARN["beta_fast"] else plain / FACTOR
    found.append(litgpt[pair] / expected)
    print(f"{pair:4}  {turns:6.2f}  {plain:.9f}  {expected:.9f}  {litgpt[pair]:.9f}")
assert abs(found[0] * FACTOR - 1) < 1e-3, "the finding is out of date"
assert abs(found[1] / FACTOR - 1) < 1e-3, "the finding is out of date"
PYTHON
