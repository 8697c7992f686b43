"""Speculative decoding: who proposes draft tokens, and how many of them are worth verifying.

``controller.py`` decides, with what ``acceptance.py`` measures. ``proposal.py`` says what a drafter
must do; ``ngram.py``, ``recycling.py`` and ``draft_model.py`` are three. ``draft_tree.py`` makes
rows of their tokens. ``factory.py`` makes what settings ask for. It stands on ``models``, ``plan``
and ``runtime``; ``generation/decode.py`` verifies the tokens.
"""
