"""ggml's block types as MLX stores them, and back.

``table.py`` is the table of all types and the way in; ``affine_blocks.py`` takes apart those whose
codes are MLX's, ``level_blocks.py`` those whose values are levels of a table, ``joins.py`` makes
blocks. Stands on ``converters/tensors``.
"""
