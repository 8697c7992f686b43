"""Hugging Face's folders as a source (``source.py``), of safetensors or of PyTorch's files, which
are read without torch and without running what is in them (``torch_file.py``, ``unpickler.py``).
Stands on ``tensors``.
"""
