"""Gates, norms and the loss of logits, each with its derivative.

``gate_and_norms.py`` is what a layer has between products, ``loss.py`` what comes after the head.
"""
