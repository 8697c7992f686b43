#!/bin/sh
# gguf 0.19.0 (PyPI): GGUFReader keeps two NumPy arrays for every token, so that opening a file with a
# Llama 3's vocabulary takes seconds and some hundred MB before any weight is looked at.
#
# One would expect: the reader maps the file ("r" of numpy.memmap), so opening costs little, and a
# list of 128,256 tokens with 280,147 merges, 9 MB in the file, costs about what it takes there.
#
# What happens: for each text of an array the reader keeps two NumPy arrays (its length and its
# bytes) and an index, whether or not anybody asks for the field; for an array of numbers one array
# for each number. A tensor is a single one.
#
# Output seen (x86-64, Python 3.11):
#   gguf 0.19.0: file 9.2 MB, opened in 10.0 s of processor time
#   peak memory grew by 633 MB; NumPy arrays: 816816 for texts, 128261 for 128256 numbers, 1 for
#   the tensor
#
# For users: a tool that only wants the shapes or one key of a model pays this for each file it
# opens; read the header's few keys yourself, or keep one reader open. Tensors are mapped as expected.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import pathlib
import resource
import sys
import time

import gguf
import numpy as np

TOKENS, MERGES = 128_256, 280_147
unit = 1 if sys.platform == "darwin" else 1024


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


writer = gguf.GGUFWriter("model.gguf", "llama")
writer.add_token_list([f"token {number}" for number in range(TOKENS)])
writer.add_token_types([1] * TOKENS)
writer.add_token_merges([f"a{number} b{number}" for number in range(MERGES)])
writer.add_tensor("output.weight", np.zeros((32, 32), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
file_bytes = pathlib.Path("model.gguf").stat().st_size

before, begun = peak(), time.process_time()
reader = gguf.GGUFReader("model.gguf")
seconds, grown = time.process_time() - begun, peak() - before

tokens, merges = (reader.fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges"))
types = reader.fields["tokenizer.ggml.token_type"]
arrays = len(tokens.parts) + len(merges.parts)
print(f"gguf 0.19.0: file {file_bytes / 1e6:.1f} MB, opened in {seconds:.1f} s of processor time")
print(f"peak memory grew by {grown / 1e6:.0f} MB; NumPy arrays: {arrays} for texts,", end=" ")
print(f"{len(types.parts)} for {TOKENS} numbers, {len(reader.tensors)} for the tensor")
assert arrays > 2 * (TOKENS + MERGES), arrays
assert len(types.parts) > TOKENS, len(types.parts)
assert grown > 10 * file_bytes, (grown, file_bytes)
assert len(reader.tensors) == 1
PYTHON
