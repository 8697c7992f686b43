"""Training before it begins: its memory, what a step reads, and how long it takes.

``training_forecast.py`` has the figures, ``arithmetic_rate.py`` measures one layer for them.
"""
