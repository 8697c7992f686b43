"""Frames between machines, sent and received in native code between the steps of kernels.

``words.py`` has the table that Python and the code share, ``table.py`` fills it, ``lanes.py`` and
``relay.py`` emit the code. A relay waits for what is on its way, does steps with it, and sends what
they make: no interpreter stands between what arrives and what goes out, and while that travels
Python prepares the next relay.
"""
