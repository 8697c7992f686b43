"""Processes of their own in which the bench loads and measures models.

``process.py`` starts one and talks with it, ``protocol.py`` is what both sides say and the worker's
own side, ``status.py`` and ``status_line.py`` tell a person how far a run is, and ``memory_cap.py``
holds a process to a number of bytes.
"""
