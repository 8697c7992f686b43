"""Folders whose matrices another quantizer has packed, as a source (``source.py``).

One file a method; each shows a matrix as MLX stores it where MLX can say the same, else as numbers.
Stands on ``huggingface``.
"""
