"""Quantization that a text guides: GPTQ with searched scales, layer by layer.

``column_quantizer.py`` has the arithmetic of a matrix, ``layer_quantizer.py`` that of a layer,
``calibrated_source.py`` shows a model so quantized as a source. Stands on ``mixed_bits``.
"""
