"""What several tests of paging share."""

import pytest

from edgellm.converters.synthetic import synthesize


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of synthetic models by shape and bits, made when they are first asked for."""
    root = tmp_path_factory.mktemp("models")

    def make(shape, bits=4):
        folder = root / f"{shape}-{bits}"
        if not folder.exists():
            synthesize(shape, folder, bits=bits)
        return folder

    return make
