"""A model and adapters of it, which the tests of unmerged ones share."""

import pytest
from support.adapters import LLAMA
from support.lora_files import dora_adapter, peft_adapter
from support.tiny import write_model

from edgellm.converters import convert


@pytest.fixture(scope="package")
def base(tmp_path_factory):
    """A model as it was made, in 16 and in 4 bits, and two adapters: ``lora`` and ``dora``."""
    folder = tmp_path_factory.mktemp("base")
    plain = write_model(folder / "plain", LLAMA)
    convert(plain, folder / "16", bits=16)
    convert(plain, folder / "4", bits=4, group_size=32)
    peft_adapter(folder / "lora")
    dora_adapter(folder / "dora")
    return folder
