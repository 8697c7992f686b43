"""The oracles' processes: started once, asked one question after another."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ORACLES = {
    "transformers": "transformers_oracle.py",
    "mlx-lm": "mlx_lm_oracle.py",
    "llama.cpp": "llama_cpp_oracle.py",
}
"""The file of each oracle."""

FOLDER = Path(__file__).parent / "oracles"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


class PeerError(Exception):
    """An oracle could not answer."""


class Peers:
    """Oracles that are started when they are first asked.

    Args:
        python: the interpreter that has them.
    """

    def __init__(self, python=sys.executable):
        self._python = python
        self._running = {}
        self._logs = tempfile.TemporaryDirectory()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._running.values():
            process.stdin.close()
            process.wait(30)
            process.stdout.close()
        self._logs.cleanup()

    def ask(self, name, **request):
        """Return an oracle's answer. Raises PeerError where it fails or ends."""
        log = Path(self._logs.name, name)
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            with log.open("w") as errors:
                process = subprocess.Popen(
                    [self._python, str(FOLDER / ORACLES[name])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                    env=os.environ | QUIET,
                )
            self._running[name] = process
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            last = log.read_text(errors="replace")[-800:]
            raise PeerError(f"{name} ended with {process.wait()}: {last}")
        said = json.loads(line)
        if "failed" in said:
            raise PeerError(f"{name}: {said['failed']}")
        return said

    def versions(self):
        """The versions of all oracles that were asked something."""
        found = {}
        for name in self._running:
            found |= self.ask(name, versions=True)
        return found
