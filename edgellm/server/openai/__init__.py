"""OpenAI's API: chat completions, completions and models.

``field_tables.py`` has the fields of each endpoint; ``chat_completions.py`` and ``completions.py``
answer, ``logprobs.py`` and ``usage.py`` make parts of their objects.
"""
