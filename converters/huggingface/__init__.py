"""Hugging Face's folders as a source (``source.py``): safetensors or PyTorch's files.

These are read without torch and without running what is in them (``torch_file.py``,
``unpickler.py``). Stands on ``tensors``.
"""
