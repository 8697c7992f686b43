"""LoRA adapters: ``adapter.py`` reads PEFT's and mlx-lm's folders.

``state_dict.py`` reads the files of LitGPT and loralib, which have no config of that kind.
``merged_source.py`` shows a model with one merged in. Stands on ``tensors``, ``huggingface`` and
``litgpt``.
"""
