"""The suite's ground: no network, no caches of this machine, and reasons for what is skipped."""

import gc
import ipaddress
import os
import signal
import sys
import tempfile
from importlib import util

import pytest
from hypothesis import HealthCheck, settings

# no check of the time: this machine may be busy
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


def pytest_configure(config):
    """Point what is kept at an empty folder, and refuse the network, before anything is imported.

    The processes of a run share the folder: what one has compiled, the others find, and a later
    run of the same kernels does.
    """
    sys.addaudithook(refuse_network)
    # no power is cut here, and thousands of flushes to a disk are waited for
    os.fsync = os.fstat
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it has the environment of the process that started it
    # A shell starts what is to run in the background with this signal ignored, and so would be the
    # processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    caches = tempfile.TemporaryDirectory(prefix="edgellm-tests-")
    config.add_cleanup(caches.cleanup)
    os.environ.update(
        HF_HOME=caches.name,
        XDG_CACHE_HOME=caches.name,
        XDG_STATE_HOME=os.path.join(caches.name, "state"),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
    )
    keep_kernels(config, caches.name)


def keep_kernels(config, caches):
    """Begin with the kernels that an earlier run compiled, and keep those of this one."""
    from support.compiled_kernels import copy_kernels, kernels_in

    if not (util.find_spec("llvmlite") and hasattr(config, "cache")):
        return
    kept, used = config.cache.mkdir("kernels"), kernels_in(caches)
    copy_kernels(kept, used)
    config.add_cleanup(lambda: copy_kernels(used, kept))


def pytest_collection_finish(session):
    """Have the garbage collector pass over what was imported and collected: it stays to the end.

    Each full collection would look through all of it again: a tenth of a second, hundreds of times.
    """
    gc.collect()
    gc.freeze()


def refuse_network(event, arguments):
    """Fail a test that looks up or connects to anything but this machine."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        pytest.fail(f"a test reached for the network: {name}")


def missing(marker):
    """Why a test with this marker cannot run here, or None."""
    if marker == "torch":
        return None if util.find_spec("torch") else "torch is not installed"
    import mlx.core as mx

    if marker == "metal":
        return None if mx.metal.is_available() else "there is no Apple GPU"
    if mx.cuda.is_available():
        return None
    if util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return None
    return "there is no NVIDIA GPU"


def pytest_runtest_setup(item):
    """Skip what this machine cannot run, and say why."""
    for marker in ("metal", "cuda", "torch"):
        if item.get_closest_marker(marker) and (reason := missing(marker)):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A function that returns the folder of a tiny random model, written once a session.

    Its kind is one of ``tiny.CONFIGS``.

    Keywords are those of ``tiny.write_model``, and ``config``: keys that replace the kind's own.
    """
    from support import tiny

    written = {}

    def folder(kind="llama-3.2", *, config=None, **settings):
        key = (kind, repr(config), repr(sorted(settings.items())))
        if key not in written:
            place = tmp_path_factory.mktemp("tiny") / kind
            written[key] = tiny.write_model(place, tiny.CONFIGS[kind] | (config or {}), **settings)
        return written[key]

    return folder


@pytest.fixture(scope="module")
def on_the_cpu():
    """MLX computes on the processor while a module's tests run, whatever else is here."""
    import mlx.core as mx

    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@pytest.fixture
def open_llm(tiny_folder):
    """A function that loads a tiny model (see ``tiny_folder``) or a folder; closed at the end."""
    import edgellm

    opened = []

    def load(model="llama-3.2", *, load=None, **settings):
        folder = tiny_folder(model, **settings) if isinstance(model, str) else model
        # tests run side by side on all cores
        loading = {"memory": "500MB", "threads": 1} | (load or {})
        opened.append(edgellm.load(folder, **loading))
        return opened[-1]

    yield load
    for llm in opened:
        llm.close()
