"""Clusters on one machine: network namespaces, links of a delay and a rate, throttled disks.

``gathers.py`` measures what rows exchange. ``two_processes.py``, ``streams.py`` and ``training.py``
measure two processes without any of that, and ``peers`` other programs beside ours.
"""
