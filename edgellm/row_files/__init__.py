"""Files of rows that people have: JSON lines, lists in JSON, documents of plain text.

``reading.py`` reads them, each row with its line; ``problems.py`` gathers what is wrong with rows,
so that it is told at once. Stands on ``files``; evaluation and training use it.
"""
