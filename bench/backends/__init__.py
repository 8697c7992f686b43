"""Runtimes that the bench compares, one file each.

``registry.py`` has the protocol that they implement, a worked example, and the table of them; what
we wrote in torch ourselves is in ``bench/torch_backend``.
"""
