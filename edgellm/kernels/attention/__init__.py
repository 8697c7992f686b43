"""Attention over the KV cache.

``attention.py`` attends to each split of the keys and ``merge.py`` puts these together;
``key_columns.py`` turns keys, ``online_softmax.py`` takes in a block of them, ``kv_storage.py``
reads and writes the cache's formats. Prompts take ``tile_attention.py`` where there are tiles, with
``tile_blocks.py`` (keys and values as tiles), ``tile_softmax.py`` (their products) and
``tile_weights.py`` (the softmax between). ``scratch.py`` has the sizes of what a thread works in.
They stand on ``kernels/codegen`` and on ``kernels/matmul``'s instructions for tiles.
"""
