"""This machine, and one model's use of it.

``machine`` reads what it is and how much memory it has; ``model_lock`` and ``streams`` let threads
share a model, and ``forks`` refuses what was forked too late; ``huge_pages`` and
``require_mlx`` stand alone. Imports only ``errors``.
"""
