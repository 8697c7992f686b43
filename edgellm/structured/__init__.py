"""Structured output: answers that are held to a JSON schema or a grammar, token by token.

``grammar.py`` is what callers make: a grammar that was checked. ``json_schema.py`` says where a
schema cannot be enforced. ``token_trie.py`` has a model's tokens as llguidance needs them, and
``constraint.py`` holds one sequence to a grammar. Only ``library.py`` imports llguidance, when a
grammar is made.
"""
