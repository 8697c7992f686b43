"""Records in files and on a page.

``result_files.py`` writes records and reads them back; ``html_report.py`` makes the page of them,
a section a file, from the building blocks in ``parts/``. Stands on the records, their tables and
statistics.
"""
