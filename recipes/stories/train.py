"""Train the tiny story-telling LLaMA of `edgellm chat`, and save it as a Hugging Face folder.

    python train.py --data FOLDER --out FOLDER --minutes 90

The data folder holds tinystories_train.txt and tinystories_valid.txt.

Needs torch, transformers and sentencepiece. On two CPU cores 90 minutes see about five epochs of 9
MB of text.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from corpus import ASSISTANT, END, SYSTEM, USER, documents
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 512
VOCABULARY = 4096
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def read_stories(path: Path) -> list[str]:
    return [
        story.strip()
        for story in path.read_text().split("<|endoftext|>")
        if len(story.strip()) > 100
    ]


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


def tokens_of(texts: list[str], tokenizer) -> np.ndarray:
    """All texts in one row, each between <s> and </s>.

    No word-start piece stands before a leading special token.
    """
    ids = []
    for text, encoded in zip(texts, tokenizer.encode(texts), strict=True):
        ids += [1, *(encoded[1:] if text.startswith("<|") else encoded), 2]
    return np.asarray(ids, dtype=np.int64)


def batches(ids: np.ndarray, batch: int, rng: np.random.Generator):
    rows = len(ids) // CONTEXT
    start = rng.integers(0, len(ids) - rows * CONTEXT + 1)
    table = ids[start : start + rows * CONTEXT].reshape(rows, CONTEXT)
    for chosen in np.array_split(rng.permutation(rows), rows // batch):
        yield torch.from_numpy(table[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    train, valid = (
        read_stories(args.data / f"tinystories_{part}.txt") for part in ("train", "valid")
    )
    tokenizer = train_tokenizer(args.data / "tinystories_train.txt", args.out)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=[2, tokenizer.piece_to_id(END)],
        rope_theta=10000.0,
    )
    model = LlamaForCausalLM(config).to(args.device)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.95),
    )
    held_out = tokens_of(documents(valid, seed=1), tokenizer)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters,",
        f"{len(train)} stories",
        flush=True,
    )

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(args.device, dtype=torch.bfloat16):
            return model(input_ids=rows.to(args.device), labels=rows.to(args.device)).loss

    @torch.no_grad()
    def validate() -> float:
        model.eval()
        losses = [
            loss_of(rows).item() for rows in batches(held_out, args.batch, np.random.default_rng(0))
        ]
        model.train()
        return sum(losses) / len(losses)

    begun, step, epoch, seen = time.time(), 0, 0, 0
    log = []
    model.train()
    while (time.time() - begun) / 60 < args.minutes:
        ids = tokens_of(documents(train, seed=100 + epoch), tokenizer)
        for rows in batches(ids, args.batch, rng):
            done = (time.time() - begun) / 60 / args.minutes
            if done >= 1:
                break
            warm = min(1.0, (step + 1) / 200)
            rate = args.rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            seen += rows.numel()
            if step % 100 == 0:
                minutes = (time.time() - begun) / 60
                progress = (
                    f"step {step} epoch {epoch} loss {loss.item():.3f} tokens {seen / 1e6:.2f}M"
                )
                print(f"{progress} {minutes:.1f} min", flush=True)
            if step % 500 == 0:
                log.append({"step": step, "tokens": seen, "validation_loss": round(validate(), 4)})
                print(log[-1], flush=True)
        epoch += 1
    final = validate()
    log.append({"step": step, "tokens": seen, "validation_loss": round(final, 4)})
    print("final", log[-1], "perplexity", round(math.exp(final), 3), flush=True)

    model.to(torch.bfloat16).save_pretrained(args.out)
    (args.out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "LlamaTokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "add_bos_token": True,
                "add_eos_token": False,
                "legacy": False,
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            },
            indent=2,
        )
        + "\n"
    )
    (args.out / "training_log.json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
