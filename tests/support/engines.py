"""What an engine stands on, opened without an LLM."""

from contextlib import closing, contextmanager

import mlx.core as mx

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device.model_lock import ModelLock
from edgellm.device.streams import borrowed_stream
from edgellm.engine.scheduling.context import EngineContext
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import load_model
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

KINDS = ["resident", "paged", "window", "sliding", "int8", "int8 paged"]
"""The models of the fixture ``models``."""


def seen(tokens):
    """Of an answer, what does not depend on when it was computed."""
    return [(token.id, token.text, token.logprob, token.finish_reason) for token in tokens]


@contextmanager
def open_context(folder, **settings):
    """The context of an engine over a model; the model is closed afterwards."""
    settings = LoadSettings(**{"memory": "500MB", "threads": 1} | settings)
    checkpoint = read_checkpoint(folder)
    plan, reader = plan_for(checkpoint, settings), DiskReader()
    caches = LayerCaches(checkpoint, plan)
    with closing(reader), borrowed_stream():
        model = load_model(checkpoint, plan, reader, settings)
        with closing(model.layers):
            yield EngineContext(
                model=model,
                caches=caches,
                tokenizer=Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size),
                plan=plan,
                reader=reader,
                model_lock=ModelLock(mx.default_stream(mx.default_device()), lambda: None),
                prefix_cache=PrefixCache(
                    lambda tokens: caches.make(capacity=plan.context, reserve=tokens),
                    lambda tokens: caches.nbytes(capacity=tokens, context=plan.context),
                    plan.kv_budget,
                ),
                end_tokens=checkpoint.eos_token_ids,
                context=plan.context,
            )
