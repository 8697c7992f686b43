"""Measurements as data: samples, their settings and machine, and derived figures.

``record.py`` has the records, ``text_tables.py`` shows them, ``compare.py`` sets result files side
by side, and ``collect.py`` takes records as they come. Nothing here measures; stands on no other
folder of the bench.
"""
