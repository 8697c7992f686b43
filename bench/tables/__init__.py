"""Records as text: tables that fit a screen, markdown, CSV and JSON.

``text_tables.py`` has the columns of each kind and every form; ``narrow_tables.py`` fits a table to
a width, and says what is doubtful in it. It stands on ``records``.
"""
