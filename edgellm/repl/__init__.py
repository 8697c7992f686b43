"""The chat screen, over ``chat`` and ``console``.

``repl`` runs a conversation and its slash commands, ``line_editor`` reads what is typed,
``chat_view`` has its words, ``last_chat`` keeps the conversation for the next process.
"""
