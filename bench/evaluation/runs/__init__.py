"""Runs: the questions of tasks go through models, and come back as records.

``evaluate.py`` crosses models with tasks and settings; a ``run.py`` is one of each.
``session.py`` talks with ``worker.py``, which holds one loaded model in a process of its own.
``prompt_tokens.py`` cuts prompts into tokens, ``decoding.py`` names ways to draw them.
``samples.py`` keeps each answer on disk, so that a run that was stopped goes on;
``measures.py`` has the reference and a judge look at answers, and ``outcomes.py`` makes columns of
them. Stands on ``bench/evaluation/tasks`` and ``records``.
"""
