"""The decoder on the CPU kernels: ``block``, ``linear``, and the memory of caches.

What they know is listed: families in ``models.arithmetic``, types and quantization modes in
``linear``, KV formats in ``kv_memory``; anything else runs in MLX, with a warning that says why.
"""
