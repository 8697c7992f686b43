"""Names of GGUF files on the Hub, and which model they mean."""

import pytest

from edgellm.errors import ModelNotFoundError
from edgellm.hub.gguf_files import gguf_models, pick_model, say_models
from edgellm.hub.names import HubName, parse_hub_name

FILES = [
    "README.md",
    "mmproj-model-f16.gguf",
    "Tiny-1B-mmproj-f16.gguf",
    "imatrix_unsloth.gguf",
    "Tiny-1B-Q4_K_M.gguf",
    "Tiny-1B-UD-Q4_K_M.gguf",
    "Tiny-1B-Q4_K_S.gguf",
    "Tiny-1B-Q4_0.gguf",
    "Tiny-1B-Q4_0_4_4.gguf",
    "Tiny-1B-IQ4_XS.gguf",
    "Tiny-1B.Q8_0.gguf",
    "Tiny-1B-f16.gguf",
    "BF16/Tiny-1B-BF16-00001-of-00002.gguf",
    "BF16/Tiny-1B-BF16-00002-of-00002.gguf",
    "F32/Tiny-1B-F32-00001-of-00003.gguf",
]


@pytest.mark.parametrize(
    ("quant", "first"),
    [
        ("Q4_K_M", "Tiny-1B-Q4_K_M.gguf"),
        ("q4_k_m", "Tiny-1B-Q4_K_M.gguf"),
        ("UD-Q4_K_M", "Tiny-1B-UD-Q4_K_M.gguf"),
        ("Q4_0", "Tiny-1B-Q4_0.gguf"),
        ("IQ4_XS", "Tiny-1B-IQ4_XS.gguf"),
        ("Q8_0", "Tiny-1B.Q8_0.gguf"),
        ("F16", "Tiny-1B-f16.gguf"),
        ("BF16", "BF16/Tiny-1B-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_quantization_means_the_model_that_ends_with_it(quant, first):
    name = parse_hub_name(f"owner/tiny-GGUF:{quant}")
    assert pick_model(name, FILES)[0] == first


def test_all_shards_of_a_model_are_its_files():
    shards = [name for name in FILES if name.startswith("BF16")]
    for asked in shards:
        assert pick_model(parse_hub_name(f"owner/tiny/{asked}"), FILES) == shards
    assert "F32/Tiny-1B-F32-00001-of-00003.gguf" not in gguf_models(FILES)


@pytest.mark.parametrize(
    ("asked", "files", "said"),
    [
        (":Q5_K_M", FILES, "owner/tiny:Q4_K_S"),
        (":Q4", FILES, "owner/tiny:IQ4_XS"),
        (":F32", FILES, "owner/tiny:Q8_0"),
        ("/else.gguf", FILES, "owner/tiny:f16"),
        (":Q8_0", ["a-Q8_0.gguf", "b-Q8_0.gguf"], "owner/tiny/a-Q8_0.gguf or owner/tiny/b"),
        (":Q8_0", ["model.safetensors"], "without a file"),
    ],
)
def test_a_model_that_is_not_there_is_said_with_those_that_are(asked, files, said):
    with pytest.raises(ModelNotFoundError) as caught:
        pick_model(parse_hub_name(f"owner/tiny{asked}"), files)
    assert said in caught.value.hint


def test_files_that_would_lie_elsewhere_are_no_models():
    assert gguf_models(["../a.gguf", "/a.gguf", "a/../../b.gguf", "\x1b[2J.gguf"]) == {}


def test_models_are_named_so_that_their_names_find_them():
    hint = say_models("owner/tiny", gguf_models(FILES))
    for name in hint.removeprefix("name one of its models: ").split(", "):
        assert pick_model(parse_hub_name(name), FILES)


GGUF_PAGE = HubName("o/n/a.gguf", "o/n", file="a.gguf")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("owner/name", HubName("owner/name", "owner/name")),
        ("owner/name:Q4_K_M", HubName("owner/name:Q4_K_M", "owner/name", quant="Q4_K_M")),
        ("owner/name.gguf", HubName("owner/name.gguf", "owner/name.gguf")),
        ("o/n/a.gguf", HubName("o/n/a.gguf", "o/n", file="a.gguf")),
        ("o/n/sub/a b.GGUF", HubName("o/n/sub/a b.GGUF", "o/n", file="sub/a b.GGUF")),
        ("o/n:Q8_0.gguf", HubName("o/n:Q8_0.gguf", "o/n", quant="Q8_0")),
        ("https://huggingface.co/o/n", HubName("o/n", "o/n")),
        ("https://huggingface.co/o/n/tree/main?x=1", HubName("o/n", "o/n")),
        ("hf.co/o/n:Q8_0", HubName("o/n:Q8_0", "o/n", quant="Q8_0")),
        ("hf://o/n/", HubName("o/n", "o/n")),
        *(
            (f"https://huggingface.co/o/n/{page}/main/a.gguf", GGUF_PAGE)
            for page in ("blob", "resolve")
        ),
        ("https://huggingface.co/o/n/tree/dev", None),
        *((text, None) for text in ("name", "o/n:", "o/n:a/b", "o/n/a.bin", "/o/n/a.gguf")),
        *(
            (text, None)
            for text in ("o/n/../a.gguf", "../n/a.gguf", "o/n//a.gguf", "o/n/\x1b.gguf")
        ),
        *((text, None) for text in ("o/n:\x1b[0m", "http://o/n/a.gguf", "a b/n:Q4_0", "")),
    ],
)
def test_names_have_three_forms(text, meant):
    assert parse_hub_name(text) == meant
