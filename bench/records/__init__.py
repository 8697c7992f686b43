"""Measurements as data: samples, their settings and machine, and derived figures.

``record.py`` and ``kinds.py`` have the records, ``fields.py`` the types that their fields are
checked against, ``doubts.py`` the reasons not to trust a figure, and ``collect.py`` takes records
as they come. Nothing here measures; stands on no other folder of the bench.
"""
