"""OpenAI's API: chat completions, completions, embeddings and models.

``field_tables.py`` has the fields of each endpoint; ``chat_completions.py``, ``completions.py`` and
``embeddings.py`` answer, ``logprobs.py`` and ``usage.py`` make parts of their objects.
"""
