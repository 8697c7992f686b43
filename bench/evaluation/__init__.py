"""Evaluation: whether backends and quantizations agree, and how well a model expects a text.

``parity.py`` compares logits and greedy texts of models, each run by ``parity_worker.py``;
``tasks`` are rows of one's own, ``runs`` asks models of them, ``harness`` asks the tasks of
lm-evaluation-harness; workers of both have a ``loaded_model.py``. ``perplexity.py`` is a script
that records what a smaller KV cache costs a model, ``quality.py`` one that sets folders beside GGUF
files. Stands on ``bench/backends`` and ``records``.
"""
