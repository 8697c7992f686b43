"""Several processes that compute every matrix of a model in torch together.

Each is a rank with some rows or columns (``torch_backend.shard``) on a GPU of its own, or on the
processor: ``rank.py`` is its program; ``ranks.py`` is what the bench holds, which starts the ranks,
tells them what to compute, and ends them all where one is gone.
"""
