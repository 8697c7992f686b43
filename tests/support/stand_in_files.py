"""Small files and folders for what the documents name: models in every form, adapters, results."""

import json
import re
import shutil
from functools import partial

import mlx.core as mx
import numpy as np
from support import tiny
from support.adapters import factors, peft_tensors, write_peft
from support.bench_records import evaluation, query, speed
from support.gguf_files import WIDE, write_gguf
from support.litgpt_files import lit_llama_tensors, write_litgpt
from support.llama2c_files import write_llama2c, write_tokenizer_bin
from support.meta_files import write_meta
from support.mistral_files import write_mistral
from support.mlx_lm_models import write_mlx_lm_model
from support.packed_models import gptq_parts, write_packed
from support.tiny_tokenizers import piece_model
from support.torch_files import state, text, write_arrays

from edgellm.bench.studies.peers_in_a_budget import CONTESTS
from edgellm.bench.tables.text_tables import as_json
from edgellm.converters import convert

LLAMA = tiny.CONFIGS["llama-2"] | {"max_position_embeddings": 8192}
META = LLAMA | {"vocab_size": 448}
LARGER = LLAMA | {"hidden_size": 256, "intermediate_size": 4096}
"""With layers of some megabytes, which a disk can be measured with."""

OLD = tiny.CONFIGS["llama-1"] | {"max_position_embeddings": 8192}
HYPERPARAMETERS = """
lora_alpha: 12
lora_dropout: 0.05
lora_head: false
lora_key: false
lora_mlp: false
lora_projection: false
lora_query: true
lora_r: 4
lora_value: true
"""


def unquantized(path, config=LLAMA):
    tiny.write_model(path, config, dtype=mx.bfloat16)


def quantized(path, bits=4, config=LLAMA):
    source = path.with_name(f"{path.name}-source")
    unquantized(source, config)
    convert(source, path, bits=bits, group_size=32)
    shutil.rmtree(source)


def difference(path):
    tiny.write_model(path, OLD, seed=1, dtype=mx.bfloat16)


def gguf(path, kind="Q4_0"):
    template = tiny.TEMPLATE
    write_gguf(path, WIDE, kinds=lambda _: kind, metadata=lambda to: to.add_chat_template(template))


def gguf_repository(path):
    path.mkdir()
    for name in ("FILE.gguf", "MODEL-Q4_K_M.gguf"):
        gguf(path / name)


def litgpt(path):
    tiny.write_tokenizer(write_litgpt(path, LLAMA | {"vocab_size": 448}))


def litgpt_file(path):
    litgpt(path.parent / "made")
    for file in (path.parent / "made").iterdir():
        file.rename(path.parent / file.name)
    (path.parent / "made").rmdir()


def lit_llama_file(path):
    write_arrays(path, lit_llama_tensors(OLD, tiny.random_tensors(OLD)))
    path.with_name("model_config.yaml").write_text(f"n_head: {OLD['num_attention_heads']}\n")


def llama2c_file(path):
    pieces = piece_model(user_defined_symbols="")
    write_llama2c(path, LLAMA | {"vocab_size": 448}, version=1)
    write_tokenizer_bin(path.with_name("tokenizer.bin"), pieces)
    path.with_name("tokenizer.model").write_bytes(pieces)


def peft_adapter(path):
    write_peft(path, peft_tensors())


def layers_adapter(path):
    write_peft(path, peft_tensors(["model.layers.0.self_attn.q_proj"]))


def tuned(path):
    """The model ``unquantized`` after one of its matrices was trained."""
    unquantized(path)
    [file] = path.glob("*.safetensors")
    tensors = mx.load(str(file))
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name] * 1.5
    mx.save_safetensors(str(file), tensors)


def litgpt_adapter(path):
    """Changes of the queries and values of one layer, as ``litgpt finetune_lora`` saves them."""
    path.mkdir(parents=True)
    head = LLAMA["hidden_size"] // LLAMA["num_attention_heads"]
    rows = LLAMA["hidden_size"] + head * LLAMA["num_key_value_heads"]
    write_arrays(path / "lit_model.pth.lora", fused_changes("attn.qkv", rows), wrap=in_model)
    (path / "hyperparameters.yaml").write_text(HYPERPARAMETERS)


def in_model(entries):
    return b"\x80\x02}" + text("model") + state(entries)[2:-1] + b"s."


def fused_changes(module, rows):
    """The factors of a fused matrix of which queries and values change: two of A, B in one."""
    down, up = factors((rows, LLAMA["hidden_size"]), 5)
    other, _ = factors((rows, LLAMA["hidden_size"]), 6)
    name = f"transformer.h.0.{module}.lora_"
    return {f"{name}A": np.concatenate([down, other]), f"{name}B": up}


def loralib_adapter(path):
    down, up = factors((64, 64), 5)
    name = "model.layers.0.self_attn.q_proj.lora_"
    write_arrays(path, {f"{name}A": down, f"{name}B": up})


def lit_llama_adapter(path):
    write_arrays(path, fused_changes("attn.c_attn", 2 * OLD["hidden_size"]))


def results(path, **more):
    path.write_text(as_json([speed(**more)]))


def answers(path):
    path.write_text(as_json([query(answer="A dog.", question="Who?")]))


def lines(path, *written):
    path.write_text("".join(f"{line}\n" for line in written))


def stories(path):
    lines(path, *tiny.TEXTS)


def prompts(path):
    lines(path, *(json.dumps({"prompt": line[:30]}) for line in tiny.TEXTS[:2]))


def evaluations(path):
    path.write_text(as_json([evaluation((1, 0, 1))]))


def rows(path, made):
    lines(path, *map(json.dumps, made))


def tickets(path):
    labels = ("card", "account")
    texts = [f"{text} Ticket {number}." for number, text in enumerate(tiny.TEXTS * 5)]
    rows(path, [{"text": text, "label": labels[n % 2]} for n, text in enumerate(texts)])


def beginnings(path):
    rows(path, [{"prompt": text[:30], "reference": text[30:]} for text in tiny.TEXTS])


def requests(path):
    rows(path, [{"prompt": text[:20], "completion": text[20:]} for text in tiny.TEXTS])


def preferences(path):
    rows(
        path,
        [
            {"prompt": text[:10], "chosen": text[10:20], "rejected": text[20:]}
            for text in tiny.TEXTS
        ],
    )


def models_of_the_peers(path):
    """Small models under the names of those that ``peers_in_a_budget`` makes once."""
    for contest in CONTESTS:
        for name, _ in contest.runs.values():
            if not (path / name).exists():
                path.mkdir(exist_ok=True)
                form = {"gguf": gguf, "16bit": unquantized, "4bit": quantized}
                form[re.split("[-.]", name)[-1]](path / name)


MAKERS = {
    "MODEL": quantized,
    "SMALLER": quantized,
    "./llama-2-13b-4bit": quantized,
    "./llama-3-8b": quantized,
    "./llama-1b": unquantized,
    "./llama-1b-16bit": unquantized,
    "./llama-1b-4bit": quantized,
    "./llama-1b-8bit": partial(quantized, bits=8),
    "./tinyllama-1.1b-4bit": quantized,
    "./llama-7b": partial(quantized, config=LARGER),
    "./llama-7b-hf": partial(unquantized, config=OLD),
    "./models": models_of_the_peers,
    "./model": unquantized,
    "./base": unquantized,
    "./model-8bit": partial(quantized, bits=8),
    "./llama-3-8b.Q4_K_M.gguf": gguf,
    "model-Q4_K_M.gguf": gguf,
    "./Llama-2-7b": lambda path: write_meta(path, META, params={"hidden_dim": 128}),
    "./Mistral-Nemo-Instruct": lambda path: write_mistral(path, files=2),
    "checkpoints/meta-llama/Llama-3.2-1B": litgpt,
    "out/finetune/full/final/lit_model.pth": litgpt_file,
    "checkpoints/lit-llama/7B/lit-llama.pth": lit_llama_file,
    "stories15M.bin": llama2c_file,
    "./adapter": peft_adapter,
    "./tuning": layers_adapter,
    "./style": layers_adapter,
    "./tuned": tuned,
    "out/finetune/lora/final": litgpt_adapter,
    "lora.pt": loralib_adapter,
    "lit-llama-lora-finetuned.pth": lit_llama_adapter,
    "./alpaca-wdiff": difference,
    "mac.json": results,
    "server.json": partial(results, threads=4),
    "answers.json": answers,
    "eval-mac.json": evaluations,
    "eval-server.json": evaluations,
    "tickets.jsonl": tickets,
    "stories.jsonl": beginnings,
    "data.jsonl": requests,
    "other.jsonl": requests,
    "pairs.jsonl": preferences,
    "other-pairs.jsonl": preferences,
    "question.txt": stories,
    "my.txt": stories,
    "text.txt": stories,
    "STORIES": stories,
    "wiki.test.raw": stories,
    "prompts.jsonl": prompts,
}
"""By the name of a file or folder, what makes a small one at a path."""

REPOSITORIES = {
    "mlx-community/Llama-3.2-1B-Instruct-4bit": quantized,
    "mlx-community/Llama-3.3-70B-Instruct-4bit": quantized,
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": quantized,
    "mlx-community/gpt-oss-20b-MXFP4-Q8": lambda path: write_mlx_lm_model(path, "gpt_oss", bits=8),
    "meta-llama/Llama-3.2-1B": unquantized,
    "meta-llama/Llama-3.2-1B-Instruct": unquantized,
    "OWNER/NAME-GGUF": gguf_repository,
    "TheBloke/OWNER-MODEL-GPTQ": lambda path: write_packed(
        path,
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
        gptq_parts,
    ),
    "tatsu-lab/alpaca-7b-wdiff": difference,
    "lmsys/vicuna-7b-delta-v0": difference,
}
"""By the name of a repository of the Hub, what makes a small one."""


class StandIns:
    """Stand-ins that are made once and then copied; ``root`` is an empty folder."""

    def __init__(self, root):
        self._root = root

    def repository(self, name):
        """Return the folder of a repository."""
        return self._made(name, REPOSITORIES[name])

    def copy(self, name, place):
        """Put what a name stands for where a command that runs in ``place`` finds it."""
        kept = self._made(name, MAKERS[name])
        target = place / name
        shutil.copytree(kept.parent, target.parent, dirs_exist_ok=True)

    def _made(self, name, maker):
        """Return the file or folder, in a folder that holds it and what belongs beside it."""
        folder = self._root / name.replace("/", "--")
        path = folder / name.rpartition("/")[2]
        if not folder.exists():
            folder.mkdir(parents=True)
            maker(path)
        return path
