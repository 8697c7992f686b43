"""Statistics over records: what threads are worth, and how sure a difference of two runs is.

``amdahl.py`` fits how time falls as threads are added. ``resampling.py`` has the paired bootstrap
and standard errors of any metric, ``significance.py`` exact tests, ``sample_size.py``
what so many questions can show, and ``paired.py`` compares runs. Stands on ``bench/records`` and
``bench/metrics``.
"""
