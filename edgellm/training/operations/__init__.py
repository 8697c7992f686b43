"""Operations with derivatives, by kernels and NumPy where there is no GPU.

``adapted_product.py`` is a frozen product with what is learned beside it, ``rotary_attention.py``
LLaMA's attention over all sequences; ``attention.py`` serves all other families. ``rows_pass.py``
is a whole layer there and back. ``products.py`` chooses who multiplies by a frozen weight, and
``backward_product.py`` is the derivative by its inputs; ``kernel_products.py`` multiplies the rest.
``layer_floats.py`` says what all of them hold at once.
"""
