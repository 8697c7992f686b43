"""Attention over the KV cache.

``attention.py`` attends to each split of the keys and ``merge.py`` puts these together;
``online_softmax.py`` takes in a block of keys; ``kv_storage.py`` reads and writes the cache's
formats. Prompts take ``tile_attention.py`` where there are tiles, with ``tile_blocks.py`` (keys and
values as tiles) and ``tile_softmax.py`` (the sums). They stand on ``kernels/codegen``.
"""
