"""Bits where they are needed, as a text shows.

``backward.py`` differentiates the loss (its products: ``observed_linear.py``), ``fisher.py`` says
what fewer bits cost, ``allocate.py`` chooses, ``calibration.py`` has the text. Stands on
``tensors`` and ``edgellm.models``.
"""
