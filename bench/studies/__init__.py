"""Studies: scripts behind documents' figures, ``python -m edgellm.bench.studies.NAME``.

``batching.py`` and ``speculation.py`` (with ``replay.py``) measure edgellm alone;
``cpu_kernels.py`` (with ``cpu_runners.py``) and ``peers_in_a_budget.py`` (with
``peer_runners.py``) set it beside others. ``training`` is about training. They may look into
edgellm's inner parts.
"""
