"""From logits to the next token.

``sampler.py`` draws it, ``filters.py`` says which tokens may be drawn, ``distribution.py`` holds
the probabilities that draft tokens are verified against, and ``logprobs.py`` the log-probabilities
that are reported. Nothing here knows a model; it stands on ``settings.py``.
"""
