"""Paging: tokens per second of a model larger than its budget, beside what the disk allows.

``paging.py`` measures, each budget in a process of its own, which is ``worker.py``. Stands on
``bench/worker``, ``machine`` and ``records``.
"""
