"""Load tests of servers: many users at once, their streams read, and every gap kept.

``serving.py`` sends the load to each server in turn, by a process of its own, which is
``worker.py``: there ``users.py`` has Locust spawn users, whose requests ``client.py`` sends and
``answer.py`` reads. ``turn.py`` has the arithmetic, ``load.py`` the settings, ``prompts.py`` what
is asked. Stands on ``bench/worker``, ``records`` and ``backends``.
"""
