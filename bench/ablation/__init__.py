"""Ablation: tokens per second with all parts of edgellm, and with one left out at a time.

``ablate.py`` measures, each ablation in a process of its own, which is ``worker.py``. Stands on
``bench/worker``, ``records`` and ``speed``.
"""
