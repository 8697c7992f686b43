"""The server: models over HTTP, for the clients of OpenAI's and Anthropic's API.

``app.py`` puts the routes together, ``run.py`` serves them. ``http/`` reads bodies strictly and
sends events; ``answering/`` computes answers with ``AsyncLLM``, side by side; ``openai/`` and
``anthropic/`` turn requests into both, and tokens into their objects. Stands on starlette and
uvicorn (the extra ``serve``), which nothing else imports.
"""
