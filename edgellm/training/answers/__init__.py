"""Answers before and after training: which questions are asked, and what was said.

``questions.py`` chooses questions of the data, ``ask.py`` asks models, opened for that and closed
again, and ``kept_answers.py`` keeps both answers beside a run.
"""
