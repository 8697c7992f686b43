"""GGUF files on the Hub: ``cached_conversion.py`` makes a model folder of one, once.

``preview.py`` reads the header of one that is not here, for a plan. Stands on ``convert``.
"""
