"""Settings are checked at the door, and sizes read as people write them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.settings import LoadSettings, Sampling, parse_memory, parse_size


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
    "max_tokens": [0, -1, 1.5, True, "5", None],
    "temperature": [-0.1, 101, math.nan, math.inf],
    "top_p": [0, 1.01, -1, math.nan],
    "top_k": [-1, 2.5, 1 << 40],
    "min_p": [-0.1, 1.1, math.nan],
    "repetition_penalty": [0, -1, math.nan, math.inf],
    "beams": [0, 65, 1.0],
    "seed": [-1, 1 << 64, 0.5],
    "stop": ["", [""], [3], ["ok", ""], None, 5, b"x"],
}

for _name in ("temperature", "top_p", "min_p", "repetition_penalty"):
    SAMPLING_ERRORS[_name] += [None, "0.7", b"1", True, [], {}, object()]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SAMPLING_ERRORS.items() for value in values],
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
    with pytest.raises(TypeError):
        Sampling(topk=3)
    with pytest.raises(TypeError):
        LoadSettings(contxt=3)
    assert Sampling(stop="end") == Sampling(stop=["end"]) == Sampling(stop=("end",))


def test_an_error_is_a_fact_and_a_hint():
    with pytest.raises(EdgeLLMError) as caught:
        parse_size("many")
    assert (caught.value.message, str(caught.value)) == (
        "'many' is not a size",
        "'many' is not a size",
    )
    assert "4GB" in caught.value.hint
