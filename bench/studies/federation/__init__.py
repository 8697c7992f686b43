"""Four story-tellers learn one adapter, each from its own stories, and one of them may fail.

``stories.py`` makes the stories, ``processes.py`` runs server and clients as people would,
``losses.py`` compares what came out. Run as ``python -m edgellm.bench.studies.federation``.
"""
