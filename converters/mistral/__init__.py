"""Mistral's own folders as a source: params.json, consolidated*.safetensors, a tokenizer.

``source.py`` names the tensors, ``model_config.py`` reads params.json, ``tokenizer.py`` finds the
tokenizer. Stands on ``converters/meta``, whose names and order of rows these have.
"""
