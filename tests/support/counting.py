"""Models that are opened in a special way: with layers that count, or in too little memory."""

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.llm import LLM
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.layers import always
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.loader import load_model
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer


class CountingLayers:
    """The ``Layers`` of a model, with a note of each state that goes through them.

    ``before_layer`` is called whenever a pass asks whether to go on, which it does before a layer.
    """

    def __init__(self, layers, *, async_compute=None):
        self._layers = layers
        self.streams_weights = layers.streams_weights
        self.takes_trees = layers.takes_trees
        self.max_exact_rows = layers.max_exact_rows
        self.async_compute = layers.async_compute if async_compute is None else async_compute
        self.passes = 0
        self.lengths = []
        self.dtypes = set()
        self.before_layer = lambda: None

    def run(self, states, spans, *, keep_going=always, depth=None):
        def ask():
            self.before_layer()
            return keep_going()

        self.passes += 1
        states = list(states)
        self.lengths += [state.shape[1] for state in states]
        moved = self._layers.run(states, spans, keep_going=ask, depth=depth)
        self.dtypes |= {state.dtype for state in [*states, *moved]}
        return moved

    def close(self):
        self._layers.close()


def open_counted(folder, *, async_compute=None, speculation=None, **settings):
    """A loaded model, and its counting layers; ``async_compute`` overrides what fits this machine.

    ``speculation`` makes a speculation, from what ``factory.make_speculation`` is given; without it
    nothing speculates.
    """
    # tests run side by side on all cores
    settings = LoadSettings(**{"memory": "500MB", "threads": 1} | settings)
    checkpoint = read_checkpoint(folder)
    plan, reader = plan_for(checkpoint, settings), DiskReader()
    model = load_model(checkpoint, plan, reader, settings)
    model.layers = layers = CountingLayers(model.layers, async_compute=async_compute)
    model.whole_pass = None  # which would go past them
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    made = speculation(model, tokenizer, settings, plan) if speculation else None
    return LLM(checkpoint, tokenizer, model, plan, reader, speculation=made), layers


def paged_settings(folder, *, context=64, **load):
    """Settings with which a model just does not fit, so that its layers are streamed."""
    checkpoint = read_checkpoint(folder)

    def plan(memory):
        return plan_for(checkpoint, LoadSettings(memory=memory, context=context, **load))

    memory = plan("500MB").total_bytes
    while plan(memory).resident:
        memory -= 4096
    return {"memory": memory, "context": context, "speculate": "off", **load}


def load_settings(folder, *, paged):
    """Settings that load a model with its layers streamed, or wholly."""
    if paged:
        return paged_settings(folder)
    return {"memory": "500MB"}
