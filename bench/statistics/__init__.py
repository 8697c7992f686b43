"""Statistics over records: what threads are worth, and how sure a difference of two runs is.

``amdahl.py`` fits how time falls as threads are added. ``resampling.py`` has the paired bootstrap
and standard errors of any metric, ``significance.py`` exact tests. Stands on ``bench/records`` and
``bench/metrics``.
"""
