"""Examinations of machine, folder and model: behind ``doctor``, ``info`` and ``verify``.

``doctor`` examines the machine, ``verify`` a model folder; ``facts`` are models and completions as
plain data, ``selftest`` the arithmetic. Stands on nearly everything below the command line.
"""
