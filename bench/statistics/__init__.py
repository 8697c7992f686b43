"""Statistics over records: what threads are worth, and what a difference of two runs shows.

``amdahl.py`` fits how time falls as threads are added. Stands on ``bench/records``.
"""
