"""Texts that are there already: their log-probabilities, hidden states and embeddings.

``pairs.py`` cuts a context and its continuation into tokens, and ``windows.py`` a long text into
such pairs; ``waves.py`` says which of them go through the model together; ``scorer.py`` scores
them, and ``score_stream.py`` is what a caller reads. ``logit_rows.py`` has the logits of a whole
text; ``embeddings.py`` has hidden states and the vectors pooled of them; ``workspace.py`` is the
model that all share. It stands on the forward of ``engine``, so that many texts share a pass over
the weights; ``llm.py`` uses it.
"""
