"""Ways to draw tokens, by the names that options give them."""

import pytest

from edgellm.bench.evaluation.runs.decoding import parse_decodings
from edgellm.errors import ConfigError
from edgellm.settings import Sampling


def test_names_stand_for_sampling_settings():
    found = {
        each.name: dict(each.fields)
        for each in parse_decodings(
            "greedy, beam:4,beam,sample,sample:0.7,top-k:40,top-p:0.9,min-p:0.1,greedy"
        )
    }
    assert found == {
        "greedy": {},
        "beam:4": {"beams": 4},
        "beam": {"beams": 4},
        "sample": {"temperature": 1.0},
        "sample:0.7": {"temperature": 0.7},
        "top-k:40": {"temperature": 1.0, "top_k": 40},
        "top-p:0.9": {"temperature": 1.0, "top_p": 0.9},
        "min-p:0.1": {"temperature": 1.0, "min_p": 0.1},
    }
    for fields in found.values():
        Sampling(**fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no way"),
        ("greedy:2", "there is no decoding"),
        ("nucleus", "there is no decoding"),
        ("top-k", "there is no decoding"),
        ("top-k:many", "is no number"),
        ("top-k:1.5", "is no number"),
        ("top-p:1.5", "--decoding top-p:1.5: top_p is 1.5"),
        ("sample:nan", "--decoding sample:nan: temperature is nan"),
        ("beam:0", "--decoding beam:0: beams is 0"),
    ],
)
def test_other_names_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_decodings(text)
