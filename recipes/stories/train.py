"""Pretrain the tiny story-telling LLaMA of `edgellm chat`, with `edgellm train` alone.

    python train.py --data FOLDER --out FOLDER

The data folder holds tinystories_train.txt and tinystories_valid.txt. OUT gets, one after another:

- `base`: a config, and a tokenizer of SentencePiece that the stories train;
- `untrained`: the same with the weights that training begins with (`edgellm synth --untrained`);
- `train.jsonl`, `valid.jsonl`: chats and texts, those of every epoch with other requests;
- `model`: what is learned of them (`edgellm train --full --stage text`).

A run that was stopped goes on with --resume. Nothing but edgellm is needed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import sentencepiece
from corpus import ASSISTANT, END, SYSTEM, USER, read_stories, records

CONTEXT = 512
BATCH = 8
VOCABULARY = 4096
WARMUP_STEPS = 200
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SIZES = {
    "stories": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "heads": 8},
    "draft": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "heads": 4},
}
"""Of the bundled models; the draft itself learns from the other one, in draft.py."""


def train_tokenizer(corpus: Path, out: Path) -> sentencepiece.SentencePieceProcessor:
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(out / "tokenizer"),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.9999,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=[SYSTEM, USER, ASSISTANT, END],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
    )
    (out / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))


def write_base(out: Path, corpus: Path, size: str) -> None:
    """A model's folder without weights."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus, out)
    numbers = dict(SIZES[size])
    heads = numbers.pop("heads")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        **numbers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "hidden_act": "silu",
        "max_position_embeddings": 2 * CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": [2, tokenizer.piece_to_id(END)],
        "torch_dtype": "bfloat16",
    }
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n")


def write_records(data: Path, out: Path, epochs: int) -> None:
    """The records of all epochs, and those that are not learned."""
    stories = read_stories(data / "tinystories_train.txt")
    with (out / "train.jsonl").open("w") as file:
        for epoch in range(epochs):
            file.writelines(json.dumps(one) + "\n" for one in records(stories, seed=100 + epoch))
    held_out = records(read_stories(data / "tinystories_valid.txt"), seed=1)
    (out / "valid.jsonl").write_text("".join(json.dumps(one) + "\n" for one in held_out))


def edgellm(*arguments: object) -> None:
    """Run a command of edgellm; what it says goes on."""
    subprocess.run([sys.executable, "-m", "edgellm", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="stories")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    base, untrained = args.out / "base", args.out / "untrained"
    if not args.resume:
        write_base(base, args.data / "tinystories_train.txt", args.size)
        write_records(args.data, args.out, args.epochs)
        edgellm("synth", base, untrained, "--untrained", "--force")
    options = {
        "--stage": "text",
        "--valid": args.out / "valid.jsonl",
        "--max-tokens": CONTEXT,
        "--batch": BATCH,
        "--steps": args.steps,
        "--rate": args.rate,
        "--warmup": min(1.0, WARMUP_STEPS / args.steps),
        "--decay": 0.1,
        "--beta2": 0.95,
        "--save-every": 500,
    }
    given = [part for option in options.items() for part in option]
    resume = ["--resume"] if args.resume else []
    edgellm(
        "train", untrained, args.out / "train.jsonl", args.out / "model", "--full", *given, *resume
    )


if __name__ == "__main__":
    main()
