"""Chat templates: messages to text.

``template.py`` finds and renders them; ``render_process.py`` and ``renderer.py`` are the two ends
of the process with limits in which these strangers' programs run. ``end_texts.py`` knows the tokens
that end a turn.

It stands on ``errors`` and ``files``; the tokenizer stands on it.
"""
