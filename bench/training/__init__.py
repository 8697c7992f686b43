"""Training measured: techniques side by side in memory, time and loss, in several libraries.

``technique.py`` says what there is to measure; ``techniques.py`` and ``trainer.py`` choose.
``task.py`` is the work that all of them get: the same tokens in the same order, with the same
``task_settings.py``. ``measure.py`` has each do it in a process of its own, which is ``worker.py``,
in turns. ``edgellm_trainer.py``, ``mlx_lm_trainer.py`` and ``torch_trainer.py`` train;
``trainer.py`` says what these have in common.
Stands on ``bench/worker``, ``speed``, ``backends`` and ``records``.
"""
