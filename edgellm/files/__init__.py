"""Files of our own, written whole or not at all, and of strangers, read within bounds.

``atomic`` writes, ``bounded`` reads, ``strict_json`` does both with JSON, ``file_lock`` keeps two
operations from one destination, ``locations`` names the cache folder. ``names``, ``refusals`` and
``try_lock`` are what they share. Imports only ``errors``.
"""
