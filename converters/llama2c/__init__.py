"""llama2.c's model files as a source.

``source.py`` reads ``model.bin`` of every version, ``tokenizer.py`` the ``tokenizer.bin`` beside
it. Stands on ``converters/tensors`` and ``converters/tokenizers``.
"""
