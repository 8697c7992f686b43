"""LoRA adapters that run beside a model's weights, and their folders.

``unmerged.py`` fits one to a model, ``row_factors.py`` computes what DoRA multiplies by, from what
``model_matrices.py`` reads; a layer takes both as ``models.layers.LayerChange``.
``stored.py`` opens a folder (``converters.lora`` reads it), ``forms.py`` is how PEFT and mlx-lm
store changes, ``written.py`` makes a folder.
"""
