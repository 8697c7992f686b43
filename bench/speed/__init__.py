"""Speed: prompts and generations of models in backends, in tokens per second.

``workload.py`` says what is measured (``defaults.py``: where nobody says) and ``variants.py`` with
which files; ``speed.py`` runs it with a ``worker.py``, or ``endpoint_worker.py``, for each loaded
model; ``timing.py`` holds the stopwatch, and ``floor.py`` the time that the machine could take.
"""
