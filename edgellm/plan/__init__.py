"""A memory budget becomes a plan of what stays in memory and what streams.

``memory_estimate`` says what a model takes, ``budget`` what fits, ``plan`` what comes out, and
``planner`` brings them together by a model's settings. Stands on ``checkpoint`` and ``models``.
"""
