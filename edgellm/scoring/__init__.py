"""Texts that are there already: their log-probabilities, hidden states and embeddings.

``pairs.py`` cuts a context and its continuation into tokens, and ``windows.py`` a long text into
such pairs; ``trie.py`` joins what pairs begin with in common, ``walks.py`` sends that through the
layers, ``scorer.py`` scores what follows, and ``score_stream.py`` is what a caller reads.
``logit_rows.py`` has the logits of a whole text; ``embeddings.py`` has hidden states and the
vectors pooled of them; ``workspace.py`` is the model that all share, and ``scoring_model.py`` the
methods that ``LLM`` has of all this.
"""
