"""Parts of pages that reports alone have: tables of records, and points with intervals.

``record_tables.py`` has the tables, ``interval_plot.py`` the points, whose names stand where
``label_places.py`` finds room. What all pages have is in ``edgellm/pages``.
"""
