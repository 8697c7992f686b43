"""From a model folder to a model in torch, with the same quantized weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgellm.bench.torch_backend.linear import Joined, PackedTable, Product, Products, Table
from edgellm.bench.torch_backend.llama import Layer, Model
from edgellm.bench.torch_backend.weights import Codes, Matrix, read_matrix, read_stack, read_tensor
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.model_config import ModelConfig

LOOKED_UP = (2, 4, 8)
"""Bits that torch unpacks row by row on any device."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the bytes of weights that one decoded token goes through."""

    model: Model
    weight_bytes_per_token: int


def load_model(checkpoint: Checkpoint, products: Products) -> Loaded:
    """Read all weights. Raises ReadError."""
    counted = _Counted(products)
    config = checkpoint.config
    layers = [_layer(config, index, part, counted) for index, part in enumerate(checkpoint.layers)]
    head = checkpoint.lm_head or checkpoint.embed_tokens
    model = Model(
        config=config,
        embed_tokens=_embedding(checkpoint.embed_tokens, products),
        layers=layers,
        norm=_vector(checkpoint.norm, "weight", products),
        lm_head=counted.product_of([read_matrix(head, "")]),
        dtype=products.dtype,
        device=products.device,
    )
    return Loaded(model, counted.nbytes)


class _Counted:
    """Makes products, and counts their bytes."""

    def __init__(self, products: Products) -> None:
        self.products, self.nbytes = products, 0

    def product_of(self, matrices: list[Matrix]) -> Product:
        made = [self.products.product(matrix) for matrix in matrices]
        whole = made[0] if len(made) == 1 else Joined(made)
        self.nbytes += whole.nbytes
        return whole


def _layer(config: ModelConfig, index: int, part: TensorGroup, counted: _Counted) -> Layer:
    products = counted.products

    def vector(name: str) -> torch.Tensor:
        return _vector(part, name, products)

    def stack(name: str) -> Product:
        return counted.product_of(read_stack(part, name))

    normed = config.query_key_norm
    return Layer(
        input_layernorm=vector("input_layernorm.weight"),
        qkv_proj=stack("self_attn.qkv_proj"),
        o_proj=stack("self_attn.o_proj"),
        post_attention_layernorm=vector("post_attention_layernorm.weight"),
        gate_up_proj=stack("mlp.gate_up_proj"),
        down_proj=stack("mlp.down_proj"),
        q_norm=vector("self_attn.q_norm.weight") if normed else None,
        k_norm=vector("self_attn.k_norm.weight") if normed else None,
        window=config.sliding_window if index in config.sliding_layers else None,
    )


def _vector(part: TensorGroup, name: str, products: Products) -> torch.Tensor:
    return read_tensor(part.tensors[name]).to(products.device, products.dtype)


def _embedding(part: TensorGroup, products: Products) -> Callable[[torch.Tensor], torch.Tensor]:
    form = part.quantizations[""]
    if form is not None and form.mode == "affine" and form.bits in LOOKED_UP:
        words, scales, biases = (
            read_tensor(part.tensors[name]).to(products.device)
            for name in ("weight", "scales", "biases")
        )
        return PackedTable(words, scales, biases, form.bits, products.dtype)
    weight = read_matrix(part, "").weight
    numbers = weight.dequantized(products.dtype) if isinstance(weight, Codes) else weight
    return Table(numbers.to(products.device), products.dtype)
