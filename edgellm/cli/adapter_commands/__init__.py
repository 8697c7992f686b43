"""Commands for adapters: each file reads options and shows what came out.

``columns.py``, ``spectra_tables.py`` and ``error_curve.py`` are their tables and plots,
``svd_page.py`` a page.
"""
