"""OpenAI's API: chat completions, completions and models.

``sampling_fields.py`` reads what they have in common, ``chat_completions.py`` and
``completions.py`` answer; ``usage.py`` counts tokens.
"""
