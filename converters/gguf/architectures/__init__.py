"""llama.cpp's architectures: ``table.py`` lists them, ``names.py`` names their tensors.

Nothing here opens a file.
"""
