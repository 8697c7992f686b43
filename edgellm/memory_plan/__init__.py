"""A memory budget becomes a plan of what stays in memory and what streams.

``memory_estimate`` says what a model takes, ``budget_planner`` decides what fits, and ``plan`` is
what comes out; ``plan_checkpoint`` brings them together for a model folder and its settings. Stands
on ``checkpoint`` and ``models``.
"""
