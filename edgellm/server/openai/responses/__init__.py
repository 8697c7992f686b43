"""OpenAI's API of responses: ``/v1/responses``.

``handler.py`` answers; ``input_items.py`` reads items into messages, ``response_object.py`` makes
objects and events of a reply.
"""
