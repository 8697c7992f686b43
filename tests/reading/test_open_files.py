"""Files stay open, each once."""

import pytest
from support.resources import descriptors

from edgellm.errors import ReadError
from edgellm.reading.open_files import OpenFiles


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_files_are_opened_once(file, tmp_path):
    before = descriptors()
    files = OpenFiles(direct=False)
    for _ in range(3):
        files.descriptor(file)
    assert descriptors() - before in {0, 1}
    with pytest.raises(ReadError, match="is gone"):
        files.descriptor(tmp_path / "nothing")
    files.close()
    assert descriptors() == before
