"""Learners of a run: numbers of one kind each, with the loss that these lower.

``learner.py`` is what a trainer needs of any of them.
"""
