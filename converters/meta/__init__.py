"""Meta's own folders as a source: params.json, consolidated.*.pth, tokenizer.model.

``source.py`` joins the shards, ``model_config.py`` reads params.json, ``tokenizer.py`` makes the
tokenizer's files. Stands on ``converters/huggingface`` (PyTorch files) and ``converters/tensors``.
"""
