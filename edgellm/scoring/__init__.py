"""Texts that are there already: their log-probabilities, hidden states and embeddings.

``pairs.py`` cuts a context and its continuation into tokens; ``waves.py`` says which of them go
through the model together, and ``scorer.py`` scores them; ``embeddings.py`` has hidden states and
the vectors pooled of them; ``workspace.py`` is the model that they share. It stands on the forward
of ``engine``, so that many texts share a pass over the weights; ``llm.py`` uses it.
"""
