"""Other forms of the same: Meta's files, llama2.c's, float64, pickles, links, names without prefix."""

import os
from functools import partial

import numpy as np
from support.llama2c_files import write_llama2c, write_tokenizer_bin
from support.meta_files import write_meta
from support.tiny import random_tensors

from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from real_world import templates
from real_world.byte_level import byte_level_json, id_of, trained
from real_world.kinds.llama2 import LLAMA2
from real_world.kinds.llama3 import LLAMA3, SCALING, llama3_files
from real_world.kinds.mistral import MISTRAL, OLD
from real_world.kinds.qwen import QWEN2, qwen_files
from real_world.pieces import piece_model, pieces
from real_world.release import Built, byte_files, piece_files, release, write
from real_world.weights import random_weights, save_bin, save_safetensors


@release(
    "Llama 2 as Meta gives it, two shards", "form", note="theirs is the same in transformers' form"
)
def meta_llama2(path):
    model = piece_model()
    config = LLAMA2 | {"vocab_size": len(pieces(model)), "num_key_value_heads": 4}
    config["intermediate_size"] = 192  # as multiple_of says
    write_meta(path, config, shards=2, params={"multiple_of": 64}, dtype=np.float16)
    (path / "tokenizer.model").write_bytes(model)
    files, _ = piece_files(model, both=False)
    weights = {
        name: values.astype(np.float16).astype(np.float32)
        for name, values in random_tensors(config).items()
    }
    theirs = write(path.parent / "theirs", config, files, weights=weights, dtype="float32")
    return Built(path=path, theirs=theirs, runs=False, chats=False)


META3 = ["<|begin_of_text|>", "<|end_of_text|>"]
META3 += [f"<|reserved_special_token_{number}|>" for number in range(4)]
META3 += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
META3 += [f"<|reserved_special_token_{number}|>" for number in range(5, 251)]


@release(
    "Llama 3 as Meta gives it, a table of ranks",
    "form",
    note="theirs is the same in transformers' form",
)
def meta_llama3(path):
    vocabulary = trained("llama3")["vocab"]
    ranks = [_bytes_of(piece) for piece in sorted(vocabulary, key=vocabulary.get)]
    document = byte_level_json("llama3", META3, begin=META3[0], ignore_merges=True)
    files, size = byte_files(
        document, template=templates.LLAMA3, bos_token=META3[0], eos_token="<|eot_id|>"
    )
    config = LLAMA3 | {
        "vocab_size": size,
        "bos_token_id": id_of(document, META3[0]),
        "eos_token_id": id_of(document, "<|eot_id|>"),
        "intermediate_size": 192,
    }
    params = {"multiple_of": 64, "rope_theta": 500000.0, "vocab_size": size}
    write_meta(path, config, ranks=ranks, params=params, vocabulary_by_rows=True)
    theirs = write(
        path.parent / "theirs", config, files, weights=random_tensors(config), dtype="float32"
    )
    return Built(path=path, theirs=theirs, runs=False)


def _bytes_of(piece):
    """The bytes that a token of a byte-level vocabulary stands for."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    letters |= {chr(256 + place): byte for place, byte in enumerate(others)}
    return bytes(letters[letter] for letter in piece)


def llama2c(name, version, **more):
    def build(path):
        model = piece_model()
        config = LLAMA2 | {"vocab_size": len(pieces(model)), "max_position_embeddings": 256} | more
        path.mkdir()
        values = write_llama2c(path / "stories.bin", config, version=version)
        write_tokenizer_bin(path / "tokenizer.bin", model)
        files, _ = piece_files(model, both=False)
        theirs = write(path.parent / "theirs", config, files, weights=values, dtype="float32")
        return Built(
            path=path / "stories.bin",
            theirs=theirs,
            runs=False,
            chats=False,
        )

    release(name, "form", note="theirs is the same in transformers' form")(build)


llama2c("llama2.c, version 0", 0, tie_word_embeddings=True)
llama2c("llama2.c, version 1, its own head", 1)
llama2c("llama2.c, version 2 in int8", 2, intermediate_size=128)


@release("a fine-tune saved in float64", "form")
def float64(path):
    files, ids, of = llama3_files(templates.LLAMA3, end="<|eot_id|>")
    config = LLAMA3 | ids | {"eos_token_id": of("<|eot_id|>"), "torch_dtype": "float64"}

    def save(folder, tensors, dtype):
        data = [
            TensorData(name, "F64", values.shape, values.astype(np.float64).tobytes())
            for name, values in tensors.items()
        ]
        write_tensors(folder / "model.safetensors", data, metadata={"format": "pt"})

    write(path, config, files, save=save)
    return Built(path=path, runs=False)


@release("a base model without the prefix model.", "form")
def without_prefix(path):
    files, ids = qwen_files(None)
    config = QWEN2 | ids | {"architectures": ["Qwen2Model"]}

    def save(folder, tensors, dtype):
        tensors = {name.removeprefix("model."): values for name, values in tensors.items()}
        save_safetensors(folder, tensors, dtype=dtype)

    write(path, config, files, save=save)
    return Built(path=path, chats=False)


@release("a snapshot of the Hub's cache, links to blobs", "form")
def links(path):
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    blobs = write(
        path.parent / "blobs",
        MISTRAL | {"vocab_size": size, "sliding_window": None},
        files,
        save=partial(save_safetensors, shards=2),
    )
    path.mkdir()
    for file in blobs.iterdir():
        os.symlink(os.path.relpath(file, path), path / file.name)
    return Built(path=path)


@release(
    "a training run's folder with its own files", "form", note="optimizer, states, checkpoints"
)
def training_run(path):
    files, ids = qwen_files(templates.CHATML)
    files["trainer_state.json"] = {"epoch": 1.0, "global_step": 10, "log_history": []}
    files["training_args.bin"] = b"\x80\x02}q\x00."
    files["optimizer.pt"] = b"PK\x03\x04"
    files["rng_state.pth"] = b"PK\x03\x04"
    files["scheduler.pt"] = b"PK\x03\x04"
    files["latest"] = "global_step10"
    files["README.md"] = "---\nlicense: mit\n---\n# A tune\n"
    write(path, QWEN2 | ids, files, save=partial(save_safetensors, metadata=False))
    return Built(path=path)


@release(
    "a tied config with a head of its own", "form", note="the head is taken, as transformers 5 does"
)
def own_head(path):
    files, ids = qwen_files(templates.CHATML)
    head = {"lm_head.weight": random_weights(QWEN2 | ids, seed=5)["model.embed_tokens.weight"]}
    write(path, QWEN2 | ids, files, extra=head)
    return Built(path=path)


@release("a Mistral in pickles, one file", "form")
def one_pickle(path):
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    config = MISTRAL | {"vocab_size": size, "sliding_window": None, "torch_dtype": "float16"}
    write(path, config, files, save=save_bin, dtype="float16")
    return Built(path=path, runs=False)


@release(
    "a tune with one added token beyond the rows", "tokenizer", note="left out, as it has no row"
)
def one_token_more(path):
    files, size = piece_files(piece_model(), more=("[PAD]",), pad_token="[PAD]")
    config = LLAMA2 | {"vocab_size": size - 1}
    write(path, config, files)
    return Built(path=path, chats=False)


@release("special ids of -1 and beyond", "form", note="taken as none")
def odd_ids(path):
    files, size = piece_files(piece_model(), template=templates.LLAMA2)
    config = LLAMA2 | {"vocab_size": size, "pad_token_id": -1}
    files["generation_config.json"] = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 32000}
    write(path, config, files)
    return Built(path=path)


@release("Llama 3.1 with a factor said twice", "form", note="rope_scaling with type and rope_type")
def both_types(path):
    files, ids, of = llama3_files(templates.LLAMA31, end="<|eot_id|>")
    config = (
        LLAMA3
        | ids
        | {
            "eos_token_id": of("<|eot_id|>"),
            "max_position_embeddings": 131072,
            "rope_scaling": SCALING | {"type": "llama3"},
        }
    )
    write(path, config, files)
    return Built(path=path)
