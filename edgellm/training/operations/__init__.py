"""Operations with derivatives, by kernels and NumPy where there is no GPU.

``products.py`` chooses who multiplies; ``backward_product.py`` is the derivative by a frozen
weight.
"""
