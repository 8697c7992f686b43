"""Many sequences side by side, which share each pass over the weights (continuous batching).

``engine.py`` is the door, ``step_runner.py`` computes its steps, and ``scheduling`` says who waits
and who runs. ``batch_answers.py`` answers a list of prompts, and ``engine_thread.py`` steps an
engine for event loops. It stands on ``generation``, ``memory_plan`` and ``runtime``;
``LLM.engine`` makes an engine.
"""
