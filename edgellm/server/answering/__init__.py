"""Computes answers for any API: models by name, conversations, and tokens as they come.

``models.py`` has the models by name, ``answers.py`` turns a conversation into tokens of one or
several answers, and ``state.py`` is what all handlers share.
"""
