"""LitGPT's and Lit-LLaMA's checkpoints as a source (``source.py``).

``tensor_names.py`` knows their names and the orders of the fused matrix, ``model_config.py`` reads
LitGPT's config, ``lit_llama.py`` makes Lit-LLaMA's from the tensors. Stands on ``huggingface``
(PyTorch files) and ``tensors``.
"""
