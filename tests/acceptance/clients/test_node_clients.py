"""Libraries of JavaScript: openai, @anthropic-ai/sdk, and ai with its provider for such servers.

They are there after ``npm install --prefix tests/acceptance/clients/node``, which CI does.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import TEXT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FOLDER = Path(__file__).with_name("node")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.skipif(not (FOLDER / "node_modules").is_dir(), reason="needs the npm packages")
def test_clients_in_javascript_read_what_the_model_says(url, told):
    done = subprocess.run(
        ["node", str(FOLDER / "ask.js"), url, TEXT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert read.pop("dimensions") > 0
    assert read.pop("openai, refused") == "400 temperature"
    assert read.pop("anthropic, tokens") == 24
    assert read == dict.fromkeys(read, told)
    assert len(read) == 7
