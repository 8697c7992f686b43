"""Records in files and on a page.

``result_files.py`` writes records and reads them back; ``html_report.py`` makes the page of them,
a section a file, from the building blocks in ``page.py``, ``elements.py`` and ``plots.py``. Stands
on ``bench/records`` alone.
"""
