"""One sequence: from a prompt to a completion, token by token.

``stream.py`` is what a caller reads, ``completer.py`` runs a completion; ``prefill.py`` computes
its prompt and ``decode.py`` is the loop after it; ``beam_search.py`` stands beside them.
``text_stream.py`` turns tokens into text and ends it; ``output.py`` and ``stats.py`` hold what
comes out and what it cost. It stands on ``models``, ``sampling`` and ``speculation``; ``llm.py``
and ``engine`` use it.
"""
