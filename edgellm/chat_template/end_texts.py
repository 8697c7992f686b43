"""Tokens that end a turn by how they are written, beside the ends that a model's files name.

A chat model on a base model's tokenizer often names just the end of a text, and its template ends
turns with a token of its own. llama.cpp knows these by their text, and so do we; the list is that
of its ``src/llama-vocab.cpp`` (July 2026).
"""

from __future__ import annotations

from collections.abc import Collection

END_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
)  # fmt: skip

FILL_TEXTS = (
    ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ("<|file_sep|>",),
)
"""Of models that fill in code: the padding, a repository's name, the border of two files.

One of each kind ends a text in llama.cpp.
"""

OUTER_END = "<|end|>"
"""Ends a part of an answer only, where ``PARTS`` are there (gpt-oss, Solar)."""

PARTS = ({"<|return|>", "<|call|>"}, {"<|call|>", "<|flush|>"}, {"<|calls|>", "<|flush|>"})


def end_texts(tokens: Collection[str]) -> list[str]:
    """Return those of a vocabulary's tokens that end a text in llama.cpp, whatever else does."""
    ends = [text for text in END_TEXTS if text in tokens]
    if any(parts <= set(ends) for parts in PARTS) and OUTER_END in ends:
        ends.remove(OUTER_END)
    if "<|tool_response>" in ends and "</s>" in ends:
        ends.remove("</s>")
    for texts in FILL_TEXTS:
        ends += [text for text in texts if text in tokens][:1]
    return ends
