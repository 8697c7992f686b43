"""Kernels of training: derivatives by what goes into products, products of plain numbers.

``turn.py`` makes plain numbers of a weight's rows, turned, for the products of many tokens;
``pair_matmul.py`` multiplies by packed codes as they are, in pairs of bfloat16;
``strided_matmul.py`` multiplies plain numbers as they lie, of changes and of attention;
``causal_attention.py``, ``rotate.py`` and ``cross_entropy.py`` are attention of whole sequences,
their positions and the loss, each with its derivative.
"""
