"""Studies: scripts behind figures of the documents, run as ``python -m edgellm.bench.studies.NAME``.

``batching.py`` and ``speculation.py`` measure edgellm alone; ``cpu_kernels.py`` (with
``cpu_runners.py``) and ``peers_in_a_budget.py`` (with ``peer_runners.py``) set it beside others.
Each prints records as JSON on standard output. They may look into edgellm's inner parts.
"""
