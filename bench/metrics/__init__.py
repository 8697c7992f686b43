"""Metrics: what an answer counts for, and what many answers amount to.

A function a kind of task makes one answer's columns, numbers that can be added up (``choices.py``,
``answers.py``, ``spans.py``, ``translations.py``, ``summaries.py``, ``texts.py``); ``table.py`` has
the metrics, each one of ``formulas.py`` over sums of columns, so that any resample of the questions
can be scored without the texts. Stands on no other folder of the bench.
"""
