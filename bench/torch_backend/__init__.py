"""LLaMA in torch over a folder's own quantized weights: the backends ``cpu`` and ``cuda``.

``runtime.py`` is what the bench opens; below it stand the model (``llama.py``, ``decode.py``), how
it is loaded (``loader.py``, ``weights.py``), and the products with quantized weights (``linear.py``
and ``int4.py`` on a processor, ``cuda.py`` and ``triton_matvec.py`` on an NVIDIA GPU).
"""
