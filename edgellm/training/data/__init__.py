"""Training data: records of a file become sequences of tokens, of which some are learned.

``records.py`` reads what people have, ``conversations.py`` writes it as a model's prompts and
answers, of which ``rendering.py`` makes sequences, ``windows.py`` texts one after another, and
``pair_rendering.py`` pairs of answers (``pairs.py``).
"""
