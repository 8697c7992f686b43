"""Training on a terminal: its plan as a table."""
