"""Chat templates: messages to text, and thinking parted from answers.

``template.py`` finds and renders them; ``render_process.py`` and ``renderer.py`` are the two ends
of the process with limits in which these strangers' programs run. ``thinking.py`` knows the marks
of thinking and what switches it, ``conversation.py`` brings both to a model's conversations.
``end_texts.py`` knows the tokens that end a turn.

It stands on ``errors`` and ``files``; the tokenizer stands on it.
"""
