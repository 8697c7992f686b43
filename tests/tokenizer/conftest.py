"""Tokenizers of every form, and what opens them in transformers."""

import logging
import warnings

import pytest
from support.tiny_tokenizers import JSON_KINDS, write_json, write_pieces

from edgellm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return Tokenizer.from_folder(write_pieces(tmp_path_factory.mktemp("pieces")), vocab_size=420)


@pytest.fixture(scope="module", params=["pieces", *JSON_KINDS])
def every_kind(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    return Tokenizer.from_folder(
        write_pieces(folder) if request.param == "pieces" else write_json(folder, request.param)
    )


@pytest.fixture(scope="module")
def reference():
    """What opens a folder in transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip(
            "transformers", reason="transformers, the reference, is not installed"
        )
        logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers.AutoTokenizer.from_pretrained
