"""GGUF in: llama.cpp's files as a source.

``source.py`` is the source; ``header.py`` reads and checks the file, ``blocks`` knows the types of
its tensors, ``model_tensors.py`` their names and forms, ``model_config.py`` the config,
``tokenizer.py`` the tokenizer's files. Stands on ``converters/tensors`` and
``converters/tokenizers``.
"""
