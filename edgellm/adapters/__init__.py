"""LoRA adapters that run beside a model's weights, which stay as they are.

The folders are read by ``converters.lora``; what a layer adds is ``models.layers.LayerChange``.
"""
