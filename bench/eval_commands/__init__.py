"""Commands of ``edgellm eval``: each file reads options and shows what came out.

Stands on ``bench/evaluation``, ``bench/command_options.py`` and ``bench/judge_options.py``.
"""
