"""Settings are checked at the door, and sizes read as people write them."""

import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import UnionType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgellm
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.settings import (
    LoadFields,
    LoadSettings,
    Sampling,
    SamplingFields,
    parse_memory,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1b", 1),
        ("4GB", 4 * 10**9),
        ("512MB", 512 * 10**6),
        ("1.5GiB", 3 << 29),
        (" 2 kib ", 2048),
        ("0.5k", 500),
        ("1T", 10**12),
        ("3.25mIb", int(3.25 * (1 << 20))),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size
    assert parse_memory(text, 10**12) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1",
        "0",
        "0.0001b",
        "4XB",
        "4 G B",
        "1e9",
        "nan",
        "inf",
        "9999999TB",
        "4GB!",
        "1" * 99,
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(ConfigError):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_our_error(text):
    for parse in (parse_size, lambda text: parse_memory(text, 10**9)):
        try:
            size = parse(text)
        except ConfigError:
            continue
        assert size is None or size >= 0


@given(st.integers(1, 1 << 50), st.sampled_from(["", "B", "kB", "MiB", "gb"]))
def test_whole_numbers_are_exact(number, unit):
    scale = {"": 1, "B": 1, "kB": 1000, "MiB": 1 << 20, "gb": 10**9}[unit]
    if number * scale <= 1 << 50:
        assert parse_size(f"{number}{unit}") == number * scale


def test_memory():
    assert parse_memory(None, 5) is None
    assert parse_memory("auto", 5) is None
    assert parse_memory(123, 5) == 123
    assert parse_memory("60%", 1000) == 600
    assert parse_memory(" 100 %", 1000) == 1000
    assert parse_memory("12.5%", 1000) == 125
    for bad in ("0%", "101%", "-5%", "x%", "nan%", "%", 0, -1, 4e9, True, []):
        with pytest.raises(ConfigError):
            parse_memory(bad, 1000)


SAMPLING_ERRORS = {
    "max_tokens": [0, -1, 1.5, True, "5"],
    "temperature": [-0.1, 101, math.nan, math.inf, "0.7", None, True],
    "top_p": [0, 1.01, -1, math.nan, None],
    "top_k": [-1, 2.5, 1 << 40],
    "min_p": [-0.1, 1.1, math.nan],
    "repetition_penalty": [0, -1, math.nan, math.inf],
    "beams": [0, 65, 1.0],
    "seed": [-1, 1 << 64, 0.5],
    "stop": ["", [""], [3], ["ok", ""], None, 5, b"end"],
}

for _name in ("temperature", "top_p", "min_p", "repetition_penalty"):
    SAMPLING_ERRORS[_name] += [None, "0.7", b"1", True, [], {}, object]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SAMPLING_ERRORS.items() for value in values],
    ids=str,
)
def test_sampling_settings_out_of_range(name, value):
    with pytest.raises(ConfigError) as caught:
        Sampling(**{name: value})
    assert name in str(caught.value)
    assert caught.value.exit_code == 2


LOAD_ERRORS = {
    "context": [0, -1, 1.5, 1 << 40],
    "context_window": [0, "3"],
    "threads": [0, 5000],
    "prefill_chunk": [0, 1 << 20],
    "activations": ["int4", None],
    "backend": ["cuda", None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in LOAD_ERRORS.items() for value in values]
)
def test_load_settings_out_of_range(name, value):
    with pytest.raises(ConfigError) as caught:
        LoadSettings(**{name: value})
    assert name in str(caught.value)


def test_numbers_of_any_kind_are_numbers():
    sampling = Sampling(
        temperature=np.float32(0.5), top_p=1, min_p=np.float64(0.25), stop=iter("a")
    )
    assert (sampling.temperature, sampling.stop) == (0.5, ("a",))


def test_settings_are_frozen_and_know_their_names():
    with pytest.raises(AttributeError):
        Sampling().top_k = 3
    assert Sampling(stop="end") == Sampling(stop=["end"]) == Sampling(stop=("end",))


def test_an_error_is_a_fact_and_a_hint():
    with pytest.raises(EdgeLLMError) as caught:
        parse_size("many")
    assert (caught.value.message, str(caught.value)) == (
        "'many' is not a size",
        "'many' is not a size",
    )
    assert "4GB" in caught.value.hint


ANYTHING = [
    None,
    True,
    False,
    0,
    1,
    -1,
    8,
    1.5,
    0.7,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    10**5000,
    -(10**5000),
    1 << 200,
    1j,
    Decimal("0.7"),
    Fraction(1, 2),
    np.int64(8),
    np.uint8(1),
    np.float32(0.5),
    np.float64(math.nan),
    np.bool_(True),
    np.array(0.5),
    "",
    "0.7",
    "auto",
    "windows",
    "4GB",
    "-1%",
    "a\0b",
    "x" * 10_000,
    b"auto",
    Path("folder"),
    [],
    ["a", "b"],
    ["a", 3],
    ("end",),
    {"a": 1},
    {"a"},
    range(3),
    object(),
    len,
]
PUBLIC_SETTINGS = [LoadSettings, Sampling]


def outcome(call, **keywords):
    """What a call returns, and our error, where it raises one; others come out."""
    try:
        return call(**keywords), None
    except EdgeLLMError as error:
        return None, error


def allowed(kind, value):
    """Whether a value is what an annotation says, and a number finite."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (UnionType, typing.Union):
        return any(allowed(one, value) for one in arguments)
    if origin is typing.Literal:
        return type(value) is str and value in arguments
    if origin is Mapping:
        return isinstance(value, dict)
    if origin is Sequence:
        return type(value) is tuple and all(allowed(arguments[0], item) for item in value)
    if kind is Callable:
        return callable(value)
    if origin is Iterable:
        return type(value) is tuple and all(type(item) is str for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind) if kind is Path else type(value) is kind


@pytest.mark.parametrize(
    ("settings", "name"),
    [(settings, field.name) for settings in PUBLIC_SETTINGS for field in fields(settings)],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_field_takes_what_its_annotation_says_or_is_refused_by_name(settings, name):
    kind = typing.get_type_hints(settings)[name]
    taken = 0
    for value in ANYTHING:
        made, error = outcome(settings, **{name: value})
        if error is not None:
            assert isinstance(error, ConfigError)
            assert name in error.message
            assert len(error.message) < 300
            assert "must be" in error.message or error.hint
            continue
        taken += 1
        assert allowed(kind, getattr(made, name)), value
        assert made == settings(**{name: getattr(made, name)})
    assert 0 < taken < len(ANYTHING) / 2


def test_all_public_settings_are_tested():
    assert {one.__name__ for one in PUBLIC_SETTINGS} == {
        name for name in edgellm.__all__ if name.endswith(("Settings", "Sampling"))
    }


def test_numbers_of_numpy_are_numbers():
    made = Sampling(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint64(2**64 - 1))
    assert made == Sampling(temperature=0.5, top_k=3, seed=2**64 - 1)
    assert LoadSettings(memory=np.int64(10**9), kv_bits=np.uint8(8)).memory == 10**9


NOT_SAMPLING = [5, "x", {"top_k": 3}, LoadSettings(), Sampling]


@pytest.mark.parametrize("sampling", NOT_SAMPLING, ids=lambda value: type(value).__name__)
def test_what_is_no_sampling_is_refused(sampling, open_llm):
    llm = open_llm("llama-2")
    for call in (llm.stream, llm.generate, llm.stream_batch, llm.generate_batch):
        prompt = [5] if "batch" not in call.__name__ else [[5]]
        with pytest.raises(ConfigError, match="sampling"):
            call(prompt, sampling)
        with pytest.raises(ConfigError, match="topk"):
            call(prompt, topk=3)
    with pytest.raises(ConfigError, match="sampling"):
        llm.chat(sampling=sampling)
    with llm.batch() as batch, pytest.raises(ConfigError, match="sampling"):
        batch.submit([5], sampling)
    if not isinstance(sampling, LoadSettings):
        with pytest.raises(ConfigError, match="settings"):
            edgellm.load("stories", sampling)
    assert llm.generate([5], max_tokens=2).finish_reason == "length"


def only_one(completions):
    """Raise what the only prompt of a batch has failed of: a failure is its own."""
    if completions[0].error is not None:
        raise completions[0].error


@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: repr(type(value)))
def test_any_argument_is_taken_or_refused_as_a_setting(value, open_llm):
    """Nothing but our error comes out, and the model goes on working."""
    llm = open_llm("llama-2")
    is_text = isinstance(value, str)
    is_prompt = is_text or isinstance(value, range) or (isinstance(value, list) and not value)
    calls = [
        (lambda: llm.generate(value, max_tokens=1), is_prompt),
        (lambda: llm.generate_batch(value, max_tokens=1), None),
        (lambda: only_one(llm.generate_batch([value], max_tokens=1)), is_prompt),
        (lambda: llm.batch().submit(value, max_tokens=1), is_prompt),
        (lambda: llm.batch().submit([5], timeout=value), None),
        (lambda: llm.batch().submit([5], n=value), None),
        (lambda: llm.engine(max_queue=value), None),
        (lambda: llm.stream([5], reuse_cache=value), isinstance(value, bool | np.bool_)),
        (lambda: llm.stream([5], on_prefill=value), value is None or callable(value)),
        (lambda: llm.logits(value), None),
        (lambda: llm.chat(system=value), is_text or value is None),
        (lambda: llm.chat().stream(value), is_text),
        (lambda: llm.batch(at_once=value).close(), None),
    ]
    if not callable(value):
        calls.append((lambda: edgellm.load(llm.path, progress=value).close(), value is None))
    if not isinstance(value, str | Path):
        calls.append((lambda: edgellm.load(value), False))
    for call, is_right in calls:
        _, error = outcome(call)
        if is_right is not None:
            empty_or_long = error is not None and ("empty" in str(error) or "context" in str(error))
            assert (error is None or empty_or_long) == is_right, error
    assert llm.generate([5], max_tokens=2).finish_reason == "length"


@pytest.mark.parametrize(
    ("settings", "keywords"), [(Sampling, SamplingFields), (LoadSettings, LoadFields)]
)
def test_keywords_have_the_names_and_the_types_of_the_settings(settings, keywords):
    types = typing.get_type_hints(settings)
    assert typing.get_type_hints(keywords) == {
        field.name: types[field.name] for field in fields(settings)
    }
    assert keywords.__optional_keys__ == set(types)
