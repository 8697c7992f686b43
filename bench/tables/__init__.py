"""Records as text: tables that fit a screen, markdown, CSV and JSON.

``columns.py`` has the columns of each kind, ``text_tables.py`` values, CSV and JSON,
``markdown_tables.py`` markdown; ``narrow_tables.py`` fits a table to a width, and says what is
doubtful in it. Evaluations:
``evaluation_runs.py`` pairs them, ``evaluation_tables.py``, ``evaluation_sentences.py``,
``evaluation_pairs.py`` and ``evaluation_picture.py`` show what was found. Stands on ``records``,
``metrics`` and ``statistics``.
"""
