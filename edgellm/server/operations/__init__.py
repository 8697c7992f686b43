"""For those who run a server, and for tools: health, metrics, and texts as tokens.

``counting.py`` counts requests, ``metrics_page.py`` shows what was counted, ``health.py`` says
whether the server answers, ``tokens.py`` encodes and decodes.
"""
