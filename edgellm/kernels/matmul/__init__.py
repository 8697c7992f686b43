"""Products with a weight: ``*_matvec.py`` for one token, ``*_matmul.py`` for many.

A file for each kind of arithmetic (float32, int8, AMX tiles), as ``kernels/catalog.py`` names them;
``product_steps.py`` chooses. Those for many tokens share ``panel.py`` and ``result_writer.py``.
They stand on ``kernels/codegen``.
"""
