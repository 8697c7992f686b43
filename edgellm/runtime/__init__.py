"""A checkpoint and a plan become a model that runs: ``loader``.

``step_time`` measures its arithmetic and ``forecast`` predicts its speed. Stands on ``plan`` and
``models``.
"""
