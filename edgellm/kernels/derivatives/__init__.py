"""Kernels of derivatives by what goes into a product with a frozen weight.

``turn.py`` makes plain numbers of a weight's rows, turned, for the products of many tokens;
``pair_matmul.py`` multiplies by packed codes as they are, in pairs of bfloat16.
"""
