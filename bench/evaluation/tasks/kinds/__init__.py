"""Kinds of tasks: the forms of their rows, their questions and prompts, their scoring.

``kind.py`` says what a kind has to say; ``table.py`` lists them. A new kind is a file and a row.
"""
