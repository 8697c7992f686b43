"""GGUF in: llama.cpp's files as a source.

``source.py`` is the source; ``header.py`` reads and checks the file, ``block_types.py`` is the
table of quantized types, ``model_config.py`` the config and the tensors' names, ``tokenizer.py``
the tokenizer's files. Stands on ``converters/tensors`` and ``converters/tokenizers``.
"""
