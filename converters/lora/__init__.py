"""LoRA adapters: ``adapter.py`` reads PEFT's and mlx-lm's folders.

``merged_source.py`` shows a model with one merged in. Stands on ``tensors`` and ``huggingface``.
"""
