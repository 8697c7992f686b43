"""Sequences on their way: who waits, who runs, and what goes through the model next.

``sequence.py`` is one text, ``scheduler.py`` says whose turn it is, ``batched_forward.py`` sends
tokens of several through the model, and ``context.py`` is what they all need of it.
"""
