"""Queries: the same questions to several models, the time of answers, and their scores.

``queries.py`` asks, each model in a process of its own, which is ``worker.py``; ``questions.py``
has the questions, and ``rating.py`` scores the answers in a result file. Stands on
``bench/worker``, ``records`` and ``report``.
"""
