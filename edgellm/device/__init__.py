"""This machine, and one model's use of it.

``machine`` reads what it is and how much memory it has. ``model_lock``, ``place`` and ``streams``
let threads share a model; ``quitting`` closes models at exit, ``forks`` refuses those that were
forked too late, ``bound_to_process`` those that are copied. ``huge_pages`` and ``require_mlx``
stand alone. Imports only ``errors`` and ``setting_values``.
"""
