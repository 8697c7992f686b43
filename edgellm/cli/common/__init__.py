"""Code that commands share, over ``llm`` and ``console``.

A setting's flag and help are in ``options``; ``settings_options`` makes parameters of them;
``load_with_progress`` and ``print_completions`` run a model.
"""
