"""Stress tests that take minutes and are run by hand, with samples of them for ``make acceptance``.

``python tests/stress/NAME.py``: ``budgets`` (process memory), ``disks`` (full and read-only),
``engines`` (sequences that come and go), ``hostile_clients`` (of a server), ``kills``, ``serving``
(requests to a server), ``signals``, ``soak`` (threads, chats, asyncio), ``structured_output``,
``training_kills`` and ``writers`` (many of one name).
"""
