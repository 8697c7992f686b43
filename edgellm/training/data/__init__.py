"""Training data: records of a file become sequences of tokens, of which some are learned.

``records.py`` reads what people have, ``rendering.py`` writes it as a model's prompts and answers.
"""
