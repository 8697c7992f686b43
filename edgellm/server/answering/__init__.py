"""Computes answers for any API: models by name, conversations, and tokens as they come.

``models.py`` has the models by name; ``sampling_fields.py`` reads how tokens are drawn,
``answers.py`` turns conversations and prompts into tokens of one or several answers, ``blocks.py``
parts them into thinking, text and calls; ``state.py`` is what all handlers share,
``metrics.py`` what is counted.
"""
