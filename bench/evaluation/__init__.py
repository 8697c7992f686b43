"""Evaluation: whether backends and quantizations agree, and how well a model expects a text.

``parity.py`` compares logits and greedy texts of models, each run by ``parity_worker.py``;
``perplexity.py`` is a script for files of one's own; ``harness`` has the tasks of
lm-evaluation-harness. Stands on ``bench/backends`` and ``records``.
"""
