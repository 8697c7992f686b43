"""Commands of ``edgellm eval``: each file reads options and shows what came out.

Stands on ``bench/evaluation`` and ``bench/command_options.py``.
"""
