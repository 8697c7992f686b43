"""Learners of a run: numbers of one kind each, with the loss that these lower.

``learner.py`` is what a trainer needs of any of them. ``adapted_model.py`` is a model with an
adapter, which ``adapter.py`` has learn texts and answers, and ``preference.py`` preferences; both
by the losses of ``token_loss.py``. ``full.py`` learns all numbers of a small model.
``adapter_task.py`` opens a model for an adapter, ``adapter_memory.py`` plans its memory, and
``arithmetic_rate.py`` measures how fast one of its layers goes there and back.
"""
