"""Products, norms and attention for plain processors, compiled for the one that is here.

``kernel_engine.py`` and ``thread_pool.py`` run kernels, ``layer_steps.py`` and ``product_steps.py``
say which; ``catalog.py`` finds the emitter of each kernel in the folders below. It stands on
llvmlite and NumPy, and knows nothing of MLX.
"""
