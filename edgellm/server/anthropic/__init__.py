"""Anthropic's API: messages, and how many tokens they have.

``messages.py`` answers; ``conversation.py`` reads blocks into messages of OpenAI's form, which all
chat templates know; ``message_object.py`` makes Anthropic's objects and events of a reply.
"""
