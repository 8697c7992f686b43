"""LoRA adapters that run beside a model's weights, and their folders.

``unmerged.py`` fits one to a model; what a layer adds is ``models.layers.LayerChange``.
``stored.py`` opens a folder (``converters.lora`` reads it), ``forms.py`` is how PEFT and mlx-lm
store changes, ``written.py`` makes a folder.
"""
