"""Products of several tokens at once, each of which gets bit for bit what it gets alone.

``int8_few.py`` holds sums in registers, ``tile_matvec.py`` multiplies in tiles of integers (AMX).
Both add in the order that ``matmul/int8_matvec.py`` describes, and stand on ``kernels/matmul``.
"""
