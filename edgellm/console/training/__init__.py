"""Training on a terminal: its plan, its steps as they are taken, answers, and how it ended.

Without a terminal all of it is lines of plain text.
"""
