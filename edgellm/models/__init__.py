"""The decoder in MLX: ``model`` the whole, ``llama`` its block, ``layers`` their stack.

``paged_layers`` and ``embedding`` stream what memory cannot hold; ``arithmetic`` decides what
computes. A new family is a block in ``models/FAMILY.py`` and a row in ``checkpoint.families``, by
which ``registry`` finds it. Stands on ``checkpoint``, ``reading``, ``kv_cache`` and ``kernels``.
"""
