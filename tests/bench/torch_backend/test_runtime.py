"""The bench's model in torch says what transformers and MLX say of the same folder."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support import tiny

import edgellm
from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.converters import convert
from edgellm.errors import BackendError, ClosedError
from edgellm.hub.resolve import BUNDLED

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")

from support.paths import GOLDEN

from edgellm.bench.torch_backend.decode import Sequences
from edgellm.bench.torch_backend.llama import logits
from edgellm.bench.torch_backend.runtime import CPURuntime, CUDARuntime

# of several test processes, each with as many as there are cores, none gets on
torch.set_num_threads(1)

EXACT = RuntimeSettings(dtype="float32")
TEXT = (
    "Once upon a time there was a little girl named Anna. "
    "She lived in a small house near the sea with her mom and her dog. "
)


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def divergence(reference, other):
    """The mean Kullback-Leibler divergence a token of logits (L, V), in nats."""
    first, second = (torch.from_numpy(part).double().log_softmax(-1) for part in (reference, other))
    return float((first.exp() * (first - second)).sum(-1).mean())


@pytest.fixture
def open_runtime():
    opened = []

    def open_folder(folder, settings=EXACT, kind=CPURuntime):
        opened.append(kind(str(folder), settings))
        return opened[-1]

    yield open_folder
    for runtime in opened:
        runtime.close()


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_logits_and_greedy_text_are_those_that_transformers_gave(kind, tiny_folder, open_runtime):
    known = golden(kind)
    runtime = open_runtime(tiny_folder(kind, seed=known["seed"]))
    assert runtime.greedy(known["prompt"], len(known["greedy"])) == known["greedy"]
    found = runtime.logits(known["prompt"])
    assert found.dtype == np.float32
    for position, numbers in known["logits"].items():
        assert np.abs(found[int(position), :: known["stride"]] - numbers).max() < 1e-4


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_logits_of_a_prompt_longer_than_every_window_equal_transformers(
    kind, tiny_folder, open_runtime
):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from make_golden import open_reference, prompt_of, reference_logits

    folder = tiny_folder(kind, seed=golden(kind)["seed"])
    prompt = prompt_of(np.random.RandomState(99), 70)
    expected = reference_logits(open_reference(folder), prompt)
    assert np.abs(open_runtime(folder).logits(prompt) - expected).max() < 1e-4


@pytest.mark.parametrize(
    "kind", ["llama-3.2", "mistral-window", "qwen2-window", "qwen3", "llama-biases"]
)
def test_a_step_of_fixed_shape_is_the_same_step(kind, tiny_folder, open_runtime):
    """What a CUDA graph records: the whole cache behind a mask, the position in memory."""
    known = golden(kind)
    runtime = open_runtime(tiny_folder(kind, seed=known["seed"]))
    with torch.inference_mode():
        sequences = Sequences(runtime.model, batch=1, capacity=120, static=True)
        sequences.prefill(torch.tensor([known["prompt"]]))
        assert [int(token) for token in sequences.decode(len(known["greedy"]))] == known["greedy"]
        sequences.restart()
        sequences.prefill(torch.tensor([known["prompt"]]))
        assert [int(token) for token in sequences.decode(20)] == known["greedy"][:20]


def test_sequences_of_a_batch_are_what_each_is_alone(tiny_folder, open_runtime):
    runtime = open_runtime(tiny_folder("llama-3.1"))
    prompts = np.random.RandomState(0).randint(5, tiny.VOCABULARY, (3, 11))
    alone = [runtime.greedy(prompt.tolist(), 9) for prompt in prompts]
    with torch.inference_mode():
        sequences = Sequences(runtime.model, batch=3, capacity=20, static=False)
        sequences.prefill(torch.from_numpy(prompts))
        together = torch.cat(sequences.decode(9), dim=1).tolist()
    assert together == alone


@pytest.mark.parametrize("kind", ["llama-3.1", "mistral-window"])
def test_a_prompt_in_pieces_is_the_whole_prompt(kind, tiny_folder, open_runtime):
    runtime = open_runtime(tiny_folder(kind))
    ids = np.random.RandomState(1).randint(5, tiny.VOCABULARY, (1, 40))
    whole = runtime.logits(ids[0].tolist())
    rows = []
    with torch.inference_mode():
        sequences = Sequences(runtime.model, batch=1, capacity=40, static=False)
        sequences.PREFILL_CHUNK = 7
        for piece in (ids[:, :1], ids[:, 1:25], ids[:, 25:]):
            sequences.prefill(
                torch.from_numpy(piece),
                on_hidden=lambda hidden: rows.append(logits(runtime.model, hidden[0])),
            )
    assert np.abs(torch.cat(rows).numpy() - whole).max() < 1e-4


@pytest.mark.parametrize(
    "form",
    [
        {"bits": 2, "group_size": 32},
        {"bits": 3, "group_size": 64},
        {"bits": 4, "group_size": 32},
        {"bits": 4, "group_size": 64},
        {"bits": 5, "group_size": 64},
        {"bits": 6, "group_size": 32},
        {"bits": 8, "group_size": 64},
    ],
    ids=lambda form: f"{form['bits']}-{form['group_size']}",
)
@pytest.mark.parametrize("kind", ["llama-3.2", "qwen2"])
def test_a_quantized_folder_says_what_it_says_in_mlx(
    kind, form, tiny_folder, open_runtime, tmp_path
):
    folder = tmp_path / "quantized"
    convert(
        str(tiny_folder(kind, dtype=mx.bfloat16)),
        folder,
        bits=form["bits"],
        group_size=form["group_size"],
    )
    ids = np.random.RandomState(2).randint(5, tiny.VOCABULARY, 60).tolist()
    with edgellm.load(folder, backend="mlx", activations="float") as llm:
        expected = np.array(llm.logits(ids))
    exact, quick = open_runtime(folder), open_runtime(folder, RuntimeSettings())
    assert np.abs(exact.logits(ids) - expected).max() < 1e-3
    assert "int4 kernel" in quick.arithmetic
    assert divergence(expected, quick.logits(ids)) < (0.02 if form["bits"] == 2 else 3e-3)
    assert quick.weight_bytes_per_token < exact.weight_bytes_per_token / 3


def test_the_bundled_model_says_what_it_says_in_mlx(open_runtime):
    with edgellm.load("stories", activations="float") as llm:
        ids = llm.tokenizer.encode(3 * TEXT)[:64]
        expected = np.array(llm.logits(ids))
    assert len(ids) == 64
    found = open_runtime("stories").logits(ids)
    assert (found.argmax(-1) == expected.argmax(-1)).all()
    assert divergence(expected, found) < 1e-6
    quick = open_runtime("stories", RuntimeSettings())
    assert divergence(expected, quick.logits(ids)) < 1e-3
    assert divergence(expected, token_by_token(quick, ids)) < 1e-3


def token_by_token(runtime, ids):
    """Logits (L, V) by the steps that decode, which take other kernels than a prompt."""
    rows = []
    with torch.inference_mode():
        sequences = Sequences(runtime.model, batch=1, capacity=len(ids), static=False)
        for token in ids:
            sequences.prefill(
                torch.tensor([[token]]),
                on_hidden=lambda hidden: rows.append(logits(runtime.model, hidden[0])),
            )
    return torch.cat(rows).float().numpy()


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_other_forms_are_dequantized_and_said_to_be(mode, tiny_folder, open_runtime, tmp_path):
    bits, group = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}[mode]
    source = tiny_folder("llama-2", dtype=mx.bfloat16, config={"head_dim": 32})
    folder = tmp_path / mode
    quantize_by_mlx(source, folder, mode, bits, group)
    ids = np.random.RandomState(3).randint(5, tiny.VOCABULARY, 30).tolist()
    with edgellm.load(folder, backend="mlx", activations="float") as llm:
        expected = np.array(llm.logits(ids))
    runtime = open_runtime(folder)
    assert f"{mode} dequantized" in runtime.arithmetic
    assert np.abs(runtime.logits(ids) - expected).max() < 2e-2


def quantize_by_mlx(source, folder, mode, bits, group):
    """The folder as mlx-lm would write it in a mode that edgellm's own converter does not make."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    block = {"group_size": group, "bits": bits, "mode": mode}
    (folder / "config.json").write_text(json.dumps(config | {"quantization": block}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tensors = {}
    for name, tensor in mx.load(str(source / "model.safetensors")).items():
        if tensor.ndim == 2:
            weight, scales = mx.quantize(tensor, group_size=group, bits=bits, mode=mode)
            tensors |= {name: weight, name.replace("weight", "scales"): scales}
        else:
            tensors[name] = tensor
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})


def test_float16_scales_in_bfloat16_tables_are_said(tiny_folder, open_runtime, tmp_path):
    convert(str(tiny_folder("llama-2", dtype=mx.float16)), tmp_path / "q", bits=4, group_size=32)
    assert (
        "float16 scales rounded to bfloat16"
        in open_runtime(tmp_path / "q", RuntimeSettings()).arithmetic
    )


def test_what_the_bench_asks_for(open_runtime):
    runtime = open_runtime(BUNDLED / "stories", RuntimeSettings(threads=1))
    assert torch.get_num_threads() == 1
    tokens = np.random.RandomState(0).randint(300, 4000, (2, 60)).astype(np.int64)
    for _ in range(2):
        runtime.begin(batch=2, capacity=80)
        runtime.prefill(tokens)
        runtime.decode(20)
    assert runtime.device
    runtime.close()
    with pytest.raises(ClosedError):
        runtime.begin(batch=1, capacity=8)


def test_without_a_gpu_it_says_what_is_here_instead():
    if torch.cuda.is_available():
        pytest.skip("there is an NVIDIA GPU")
    with pytest.raises(BackendError, match=r"no NVIDIA GPU.*found ") as caught:
        CUDARuntime(str(BUNDLED / "stories"), RuntimeSettings())
    assert "--backend cpu" in caught.value.hint


@pytest.mark.cuda
@pytest.mark.parametrize("graph", [False, True])
def test_on_a_gpu_it_says_the_same(graph, open_runtime):
    ids = golden_ids()
    expected = open_runtime("stories").logits(ids)
    exact = open_runtime("stories", RuntimeSettings(dtype="float32", compile=graph), CUDARuntime)
    assert divergence(expected, exact.logits(ids)) < 1e-6
    assert exact.greedy(ids[:20], 30) == open_runtime("stories").greedy(ids[:20], 30)
    quick = open_runtime("stories", RuntimeSettings(compile=graph), CUDARuntime)
    assert divergence(expected, quick.logits(ids)) < 1e-3


def golden_ids():
    with edgellm.load("stories") as llm:
        return llm.tokenizer.encode(3 * TEXT)[:64]
