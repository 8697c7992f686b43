"""Keys and values of the tokens so far.

``cache`` stores them, for all tokens or a window, one cache per layer; ``kv_format`` says how they
are stored, plain or quantized, and computes attention over each. Imports nothing of edgellm.
"""
