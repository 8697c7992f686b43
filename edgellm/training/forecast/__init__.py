"""Training before it begins: its memory, what a step reads, and how long it takes.

``training_forecast.py`` has the figures of one machine, ``together_forecast.py`` those of several.
"""
