"""KV caches that outlive a generation (``prefix_cache``) or the process (``disk_cache``).

A ``lease`` is held while a sequence is computed. ``sequence_file`` is the format of a
file, ``owned_folder`` says which files are ours to delete.
Stands on ``kv_cache``, ``checkpoint`` and ``runtime``.
"""
