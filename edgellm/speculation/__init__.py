"""Speculative decoding: who proposes draft tokens, and how many of them are worth verifying.

``controller.py`` decides, with what ``acceptance.py`` measures; drafters (``proposal.py`` says what
one must do) are ``ngram.py`` and ``draft_model.py``; ``factory.py`` makes what the settings ask for.
It stands on ``models``, ``plan`` and ``runtime``; ``generation/decode.py`` verifies the tokens.
"""
