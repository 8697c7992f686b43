"""Rows in and out of every format.

``source.py`` is what a format must offer, ``recipe.py`` what will be written, ``weight_stream.py``
how values get there. Knows of formats only their first bytes.
"""
