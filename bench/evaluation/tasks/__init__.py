"""Tasks: a file of rows becomes questions, and questions become prompts.

``rows`` reads files, ``kinds`` knows what a row asks and what counts as right; ``task.py`` joins
them, ``templates.py`` renders prompts, ``shots.py`` chooses the examples before a question, and
``prompts.py`` puts both together. Loads no model.
"""
