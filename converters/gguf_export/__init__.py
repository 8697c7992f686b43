"""GGUF out: a model folder as one file for llama.cpp.

``export.py`` is the way in; ``matrices.py`` makes each tensor's blocks, ``model_metadata.py`` and
``vocabulary.py`` the metadata, ``writer.py`` the file. Stands on ``converters/gguf``.
"""
