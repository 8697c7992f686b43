"""Runs: the questions of tasks go through models, and come back as records.

``evaluate.py`` crosses models with tasks and settings; ``session.py`` talks with ``worker.py``, which
holds one loaded model and computes in a process of its own. ``prompt_tokens.py`` cuts prompts into
tokens, ``decoding.py`` names ways to draw them, and ``samples.py`` keeps each answer on disk, so
that a run that was stopped goes on. Stands on ``bench/evaluation/tasks`` and ``records``.
"""
