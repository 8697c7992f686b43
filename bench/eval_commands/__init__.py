"""``edgellm eval`` and its commands: each file reads options, has the work done and shows it.

Stands on ``bench/evaluation`` and ``bench/command_options.py``.
"""
