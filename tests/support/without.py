"""An environment in which some packages are not installed."""

import os
from pathlib import Path

HIDDEN_PACKAGES = Path(__file__).parent / "hidden_packages"


def without(*packages):
    """Return the variables of a process in which packages cannot be found, nor in its children.

    It works by a ``sitecustomize`` that Python runs when it starts, so it suits any command:
    ``subprocess.run([sys.executable, ...], env=without("torch", "llama_cpp"))``.
    """
    return os.environ | hiding(*packages)


def hiding(*packages):
    """Return the variables alone that hide packages from a process."""
    path = os.pathsep.join(filter(None, [str(HIDDEN_PACKAGES), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "WITHOUT_PACKAGES": ",".join(packages)}
