"""Many sequences side by side, which share each pass over the weights (continuous batching).

``engine.py`` takes the steps, ``scheduler.py`` says who waits and who runs, ``sequence.py`` is one
text on its way, and ``batched_forward.py`` sends tokens of several through the model. It stands on
``generation``, ``plan`` and ``runtime``; ``LLM.batch`` makes an engine.
"""
