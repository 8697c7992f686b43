"""Families without a block of edgellm's, run by mlx-lm's own classes, whole in memory.

``checkpoint`` reads and checks a folder of either kind, ``library`` is the one place that imports
mlx-lm, ``model`` and ``cache`` are what it makes as the rest of edgellm sees it. Stands on
``checkpoint`` and ``kv_cache``.
"""
