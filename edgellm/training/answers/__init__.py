"""Answers before and after training: which questions are asked, and what was said.

``questions.py`` chooses questions of the data, ``kept_answers.py`` keeps both answers beside a run.
Models are asked in ``training/asking``.
"""
