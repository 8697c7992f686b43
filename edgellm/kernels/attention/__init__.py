"""Attention over the KV cache: ``attention.py`` for each split of keys, ``merge.py`` at the end.

``online_softmax.py`` takes in a block of keys; ``kv_storage.py`` reads and writes the cache's
formats. The kernels stand on ``kernels/codegen``.
"""
