"""The machine under the bench: its limits, its energy, its disk, and its name on records.

``roofline.py`` and ``cuda_rates.py`` measure how fast it reads and multiplies (``rates.py``),
``disk.py`` how fast it reads files, ``energy.py`` what it uses, and ``environment.py`` names it.
"""
