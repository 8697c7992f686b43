"""The kernels' code compiles for every instruction set and has the instructions that it should."""

import sys
from functools import cache

import pytest
from support.instruction_sets import below

from edgellm.errors import BackendError, ConfigError
from edgellm.kernels.catalog import EMITTERS, emitted
from edgellm.kernels.code_cache import CodeCache, compiled, default_folder, target_machine
from edgellm.kernels.codegen.isa import ISAS, host_isas, isa_named
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.host import unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

# groups narrower and wider than a vector; codes read as words of 32 and 64 bits, plain numbers
CODED = [(WeightFormat(4, 32, "bf16"),), (WeightFormat(8, 64, "f16"),)]
WIDE = [(WeightFormat(4, 128, "f32"),)]
ODD = [
    (WeightFormat(3, 32, "f32"),),
    (WeightFormat(6, 128, "f16"),),
    (WeightFormat(0, 0, "f16"),),
]
ARGUMENTS = {
    "norm": [("f16",), ("bf16",), ("f32", "added")],
    "rope": [("plain", "f32"), ("f16", "f16"), ("plain", "q8"), ("bf16", "q4", "normed_last")],
    "attention": [("f32", 10), ("f16", 64), ("q8", 64), ("q4", 80)],
    "tile_attention": [("f16", 64), ("q8", 32)],
    "bias": [("bf16",)],
    "stretch": [("set",), ("add",)],
    "quantize": [(32, "split"), (64, "plain"), (128, "tile")],
    "pack": [("words",), ("bf16",)],
    "quantize_weights": [
        ("bf16", WeightFormat(4, 64, "bf16")),
        ("f32", WeightFormat(3, 32, "f16")),
    ],
    "int8_matvec": CODED + WIDE,
    "int8_few": CODED,
    "int8_matmul": CODED,
    "float_matvec": [*ODD, (WeightFormat(5, 64, "f32"),)],
    "float_few": ODD,
    "float_matmul": ODD,
    "tile_matvec": CODED + WIDE,
    "tile_few": [(*CODED[0], 4), *((*own, 8) for own in CODED[1:] + WIDE)],
    "tile_matmul": CODED + ODD,
    "turn": [(*CODED[0], "f32"), (*ODD[1], "bf16"), (*ODD[2], "f32")],
    "pair_matmul": CODED + WIDE,
    "norm_backward": [("bf16",)],
    "rotate": [("there",), ("back",)],
    "causal": [(64,)],
    "causal_backward": [(20,)],
    "strided_matmul": [("set",), ("add",)],
}


@cache
def text_of(kernel, isa, arguments):
    return emitted(kernel, isa, *arguments)


def is_used(isa, kernel):
    if isa is None:
        return False
    if kernel.startswith("int8"):
        return isa.dot is not None
    if kernel.startswith("pair"):
        return isa.pairs
    return isa.tiles or not kernel.startswith("tile")


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_every_kernel_compiles_for_every_instruction_set(isa):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine, lesser = target_machine(isa), below(isa)
    cache = None
    if isa in host_isas():  # other tests run these kernels: what is compiled here, they find
        cache = CodeCache(isa, folder=default_folder())
    beginning = b"\x7fELF"
    if sys.platform == "darwin":
        beginning = b"\xcf\xfa\xed\xfe"
    for kernel in EMITTERS:
        if cache is not None and kernel.endswith(("matvec", "few", "matmul")):
            # matmul/test_products.py and derivatives/ compile them for all of these, and run them
            continue
        if is_used(isa, kernel):
            for arguments in ARGUMENTS.get(kernel, [()]):
                text = text_of(kernel, isa, arguments)
                if is_used(lesser, kernel) and text == text_of(kernel, lesser, arguments):
                    continue  # compiled for the other one, with less to use
                if cache is not None:
                    assert cache.kernel(kernel, *arguments)
                    continue
                assert compiled(text, machine).startswith(beginning)


@pytest.mark.parametrize(
    ("isa", "kernel", "instruction"),
    [
        ("amx", "tile_matmul", "tdpbf16ps"),
        ("amx", "tile_matvec", "tdpbusd"),
        ("avx512-bf16", "pair_matmul", "vdpbf16ps"),
        ("avx512-vnni", "int8_matvec", "vpdpbusd"),
        ("avx-vnni", "int8_matvec", "vpdpbusd"),
        ("avx2", "int8_matvec", "vpmaddubsw"),
        ("arm64-dot", "int8_matvec", "sdot"),
    ],
)
def test_products_use_the_instruction_that_they_are_made_for(isa, kernel, instruction):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(emitted(kernel, ISAS[isa], WeightFormat(4, 64, "f16")))
    assert instruction in target_machine(ISAS[isa]).emit_assembly(module)


def test_an_instruction_set_of_another_machine_is_refused():
    here = {isa.name for isa in host_isas()}
    with pytest.raises(ConfigError, match="does not run"):
        isa_named(next(name for name in ISAS if name not in here))


def test_forms_without_kernels_are_refused():
    for bits, group, kind in (
        (7, 64, "f16"),
        (4, 16, "f16"),
        (4, 64, "u8"),
        (0, 64, "f16"),
    ):
        with pytest.raises(BackendError, match="no kernels"):
            WeightFormat(bits, group, kind)
