"""Low-rank changes taken apart: described, taken from tuned models, summed, converted.

``svd.py`` has the arithmetic, ``spectra.py`` what it says of models and adapters,
``comparison.py`` compares two models, ``gguf_form.py`` writes for llama.cpp. Stands on
``adapters``, which reads and writes folders.
"""
