#!/bin/sh
# llama-cpp-python 0.3.36 (PyPI): logit_bias and logits_processor given together are both passed over
# without a word.
#
# One would expect: Llama.create_completion applies the processors and adds the bias, as it does with
# either alone.
#
# What happens: to join the two, the bias is appended to the given list in place, and what that call
# returns, which is nothing, takes the list's place: the completion goes on without any processor.
# The caller's list has been extended, so the next call with the same list and without a bias applies
# the bias of the call before.
#
# Output seen (x86-64, Python 3.11):
#   neither           [38, 18, 16, 55] function called 0 times
#   bias              [8, 8, 8, 8] function called 0 times
#   processor         [9, 9, 9, 9] function called 4 times
#   both              [38, 18, 16, 55] function called 0 times
#   processor again   [10, 10, 10, 10] function called 4 times
#
# For users: give one of them; a bias is two lines of a processor. Make a new list for each call.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check llama-cpp-python==0.3.36 gguf==0.19.0
"$folder/venv/bin/python" - "$folder/tiny.gguf" 2>/dev/null <<'PYTHON'
import sys

import gguf
import numpy as np

path, E, V, H = sys.argv[1], 64, 64, 4
writer = gguf.GGUFWriter(path, "llama")
for add, value in (
    (writer.add_context_length, 64), (writer.add_embedding_length, E),
    (writer.add_block_count, 1), (writer.add_feed_forward_length, E),
    (writer.add_head_count, H), (writer.add_head_count_kv, H),
    (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, E // H),
    (writer.add_vocab_size, V), (writer.add_tokenizer_model, "llama"),
    (writer.add_token_list, ["<unk>", "<s>", "</s>", *(chr(256 + i) for i in range(V - 3))]),
    (writer.add_token_scores, [0.0] * V), (writer.add_token_types, [2, 3, 3] + [1] * (V - 3)),
):
    add(value)
random = np.random.RandomState(0)
for name in ("token_embd", "output"):
    writer.add_tensor(name + ".weight", random.standard_normal((V, E)).astype(np.float32))
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(name + ".weight", np.ones(E, np.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    matrix = random.standard_normal((E, E)).astype(np.float32)
    writer.add_tensor(f"blk.0.{name}.weight", matrix)
writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
writer.close()

from llama_cpp import Llama, LogitsProcessorList

model, called = Llama(path, n_ctx=64, verbose=False, n_threads=1), []


def force(ids, scores):
    called.append(True)
    scores[9] = 1e3
    return scores


one = {"logits_processor": LogitsProcessorList([force])}
for what, settings in (
    ("neither", {}), ("bias", {"logit_bias": {8: 1e3}}), ("processor", one),
    ("both", one | {"logit_bias": {10: 1e4}}), ("processor again", one),
):
    called.clear()
    answer = model.create_completion([1, 5, 6], max_tokens=4, temperature=0.0, **settings)
    ids = [ord(letter) - 253 for letter in answer["choices"][0]["text"]]
    print(f"{what:17} {ids} function called {len(called)} times")
PYTHON
