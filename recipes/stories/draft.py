"""Train the draft model of the story-telling model, and save it as a Hugging Face folder.

    edgellm convert stories TEACHER --bits 16
    python draft.py --teacher TEACHER --data FOLDER --out FOLDER --minutes 40

FOLDER of `--data` holds tinystories_train.txt. The draft learns the teacher's own probabilities, on
texts that the teacher has written (likeliest tokens and drawn ones) and on the corpus it was
trained with. Its table begins as the teacher's, seen along the directions in which that varies
most. It saves what it has every two minutes. Needs torch, transformers and sentencepiece: `edgellm
train` learns texts, and not another model's probabilities.
"""

import argparse
import json
import math
import random
import shutil
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from corpus import read_stories, records, text_of
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 512
KEPT = 32
"""Tokens of the teacher's distribution that are kept for each position."""

WIDTH, INNER, LAYERS, HEADS = 128, 384, 3, 4


def tokens_of(texts: list[str], tokenizer: sentencepiece.SentencePieceProcessor) -> np.ndarray:
    """All texts in one row, each between <s> and </s>.

    No word-start piece stands before a leading special token.
    """
    ids = []
    for text, encoded in zip(texts, tokenizer.encode(texts), strict=True):
        ids += [1, *(encoded[1:] if text.startswith("<|") else encoded), 2]
    return np.asarray(ids, dtype=np.int64)


@torch.no_grad()
def written(
    teacher: LlamaForCausalLM, begun: list[list[int]], *, temperature: float, tokens: int
) -> list[list[int]]:
    """What the teacher makes of beginnings of equal length."""
    texts = teacher.generate(
        torch.tensor(begun),
        attention_mask=torch.ones(len(begun), len(begun[0]), dtype=torch.long),
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature else None,
        max_new_tokens=tokens,
        pad_token_id=0,
    )
    found = []
    for row in texts.tolist():
        end = row.index(0) if 0 in row else len(row)
        found.append(row[:end])
    return found


def beginnings(ids: np.ndarray, rng: random.Random, *, count: int) -> list[list[list[int]]]:
    """Batches of equally long beginnings: requests, or some tokens of plain stories."""
    places = np.flatnonzero(ids == 1)
    rng.shuffle(chosen := places.tolist())
    by_length = defaultdict(list)
    for place in chosen[:count]:
        text = ids[place : place + CONTEXT]
        answers = np.flatnonzero(text[:60] == 5)  # <|assistant|>
        length = int(answers[0]) + 1 if len(answers) else rng.choice((6, 12, 24, 36))
        by_length[length].append(text[:length].tolist())
    return [
        texts[:128]
        for texts in by_length.values()
        if len(texts) >= 24 and len({len(text) for text in texts}) == 1
    ]


class Lessons:
    """Rows of tokens, and the teacher's likeliest next tokens; computed once."""

    def __init__(self, teacher: LlamaForCausalLM, ids: np.ndarray) -> None:
        rows = len(ids) // CONTEXT
        self.table = torch.from_numpy(ids[: rows * CONTEXT].reshape(rows, CONTEXT))
        self._teacher = teacher
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def batch(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (B, L), and the teacher's tokens and probabilities (B, L, K)."""
        new = [int(row) for row in chosen if int(row) not in self._known]
        if new:
            logits = self._teacher(input_ids=self.table[new]).logits.float()
            likely = torch.topk(torch.softmax(logits, -1), KEPT, sorted=False)
            for row, tokens, shares in zip(new, likely.indices, likely.values, strict=True):
                self._known[row] = tokens.to(torch.int16), shares.to(torch.float16)
        found = [self._known[int(row)] for row in chosen]
        return (
            self.table[torch.from_numpy(chosen)],
            torch.stack([tokens for tokens, _ in found]).long(),
            torch.stack([shares for _, shares in found]).float(),
        )


def new_draft(teacher: LlamaForCausalLM) -> LlamaForCausalLM:
    """A small model whose table is the teacher's along its main directions."""
    own = teacher.config
    draft = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=own.vocab_size,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS // 2,
            max_position_embeddings=own.max_position_embeddings,
            rms_norm_eps=own.rms_norm_eps,
            tie_word_embeddings=True,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            rope_theta=10000.0,
        )
    )
    table = teacher.model.embed_tokens.weight.detach().float()
    _, _, directions = torch.linalg.svd(
        table * teacher.model.norm.weight.detach().float(), full_matrices=False
    )
    with torch.no_grad():
        draft.model.embed_tokens.weight.copy_(table @ directions[:WIDTH].T)
    return draft


def save(draft: LlamaForCausalLM, teacher: Path, out: Path) -> None:
    """The model, with the teacher's tokenizer."""
    LlamaForCausalLM.save_pretrained(
        draft, out, state_dict={k: v.to(torch.bfloat16) for k, v in draft.state_dict().items()}
    )
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(teacher / name, out / name)


class Clock:
    """The share of the time that has gone."""

    def __init__(self, minutes: float) -> None:
        self._begun, self._minutes = time.time(), minutes

    def spent(self) -> float:
        return (time.time() - self._begun) / 60 / self._minutes


def own_texts(
    teacher: LlamaForCausalLM, corpus: np.ndarray, cache: Path, clock: Clock, *, until: float
) -> np.ndarray:
    """What the teacher writes in a share of the time; a file of an earlier run serves instead."""
    if cache.exists():
        return np.load(cache)
    rng, texts, queue, turn = random.Random(0), list[int](), list[list[list[int]]](), 0
    while clock.spent() < until:
        if not queue:
            queue = beginnings(corpus, rng, count=6000)
            rng.shuffle(queue)
        for text in written(
            teacher, queue.pop(), temperature=(0.0, 0.6, 0.9)[turn % 3], tokens=256
        ):
            texts += text
        turn += 1
        print(f"{turn} batches, {len(texts) / 1e6:.2f} M tokens written", flush=True)
    np.save(cache, np.asarray(texts, dtype=np.int64))
    return np.asarray(texts, dtype=np.int64)


def teach(
    draft: LlamaForCausalLM, lessons: list[Lessons], clock: Clock, args: argparse.Namespace
) -> list[dict]:
    """Train until the time is up; returns the log."""
    decay = [p for p in draft.parameters() if p.ndim > 1]
    rest = [p for p in draft.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.98),
    )
    order = np.random.default_rng(0)
    start, step, saved, log = clock.spent(), 0, time.time(), []
    queues: list[list[np.ndarray]] = [[], []]
    while clock.spent() < 1:
        done = (clock.spent() - start) / (1 - start)
        rate = (
            args.rate
            * min(1.0, (step + 1) / 100)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        which = int(order.random() < 0.35)  # one text in three is the corpus's own
        if not queues[which]:
            rows = len(lessons[which].table)
            queues[which] = list(
                np.array_split(order.permutation(rows), max(1, rows // args.batch))
            )
        rows, tokens, shares = lessons[which].batch(queues[which].pop())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = draft(input_ids=rows).logits
        logits = logits.float()
        likely = logits.gather(-1, tokens) - torch.logsumexp(logits, -1, keepdim=True)
        loss = -(shares * likely).sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            best = tokens.gather(-1, shares.argmax(-1, keepdim=True))[..., 0]
            equal = (logits.argmax(-1) == best).float().mean().item()
            log.append(
                {
                    "step": step,
                    "written": which == 0,
                    "loss": round(loss.item(), 4),
                    "top1_equal": round(equal, 4),
                }
            )
            print(log[-1], flush=True)
        if time.time() - saved > 120:
            save(draft, args.teacher, args.out)
            saved = time.time()
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument(
        "--writing",
        type=float,
        default=0.2,
        help="share of the time in which the teacher writes texts",
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    clock = Clock(args.minutes)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = (
        LlamaForCausalLM.from_pretrained(args.teacher, dtype=torch.bfloat16)
        .eval()
        .requires_grad_(requires_grad=False)
    )
    teacher.generation_config.pad_token_id = 0
    tokenizer = sentencepiece.SentencePieceProcessor(
        model_file=str(args.teacher / "tokenizer.model")
    )
    corpus = tokens_of(
        list(map(text_of, records(read_stories(args.data / "tinystories_train.txt"), seed=1))),
        tokenizer,
    )
    own = own_texts(teacher, corpus, args.out / "written.npy", clock, until=args.writing)
    draft = new_draft(teacher)
    print(f"{sum(p.numel() for p in draft.parameters()) / 1e6:.3f} M parameters", flush=True)
    log = teach(draft, [Lessons(teacher, own), Lessons(teacher, corpus)], clock, args)
    save(draft, args.teacher, args.out)
    (args.out / "training_log.json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
