#!/bin/sh
# mlx 0.32.4 (PyPI, Linux): an interrupt that comes while mlx.core is imported does not come out of
# the import as an interrupt.
#
# One would expect: what a signal handler raises during an import comes out of the import statement,
# as it does with modules in Python and with numpy's: Ctrl-C ends a program while it starts.
#
# What happens: mlx.core imports modules of Python while it initializes. A KeyboardInterrupt from one
# of these becomes "ImportError: Encountered an error while initializing the extension", which no
# handler of KeyboardInterrupt sees; programs that take an ImportError for a missing backend say so.
# Of 137 programs that got one at a random moment of their first half second, one ended so, and three
# went on as if none had come, with mlx.core imported.
#
# Output seen (x86-64, Python 3.11):
#   a module in Python: KeyboardInterrupt
#   numpy: KeyboardInterrupt
#   mlx.core: ImportError: Encountered an error while initializing the extension.
#
# For users: import mlx.core before there is something to clean up, or let the handler note the
# signal and raise after the import.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"
echo "import json.tool" >plain.py
cat >interrupt.py <<'PYTHON'
import signal
import sys
from importlib import import_module

name, at = sys.argv[1:]


class Finder:
    """Sends this process a signal where the import of one module begins."""

    def find_spec(self, wanted, path=None, target=None):
        if wanted == at:
            signal.raise_signal(signal.SIGINT)


sys.meta_path.insert(0, Finder())
try:
    import_module(name)
except BaseException as error:
    print(f"{type(error).__name__}: {error}".removesuffix(": "))
PYTHON
run() { PYTHONPATH=. venv/bin/python interrupt.py "$@"; }
plain=$(run plain json.tool)
numpy=$(run numpy numpy._core._methods)
mlx=$(run mlx.core mlx._reprlib_fix)
echo "a module in Python: $plain"
echo "numpy: $numpy"
echo "mlx.core: $mlx"
[ "$plain" = KeyboardInterrupt ] && [ "$numpy" = KeyboardInterrupt ]
[ "$mlx" = "ImportError: Encountered an error while initializing the extension." ]
