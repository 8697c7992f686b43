"""The parts that kernels are made of: LLVM IR, for the instruction sets of ``isa.py``.

``abi.py`` has the layouts that Python and the kernels share, ``emitter.py`` builds a function, and
``schedule.py`` shares its work out to threads. It stands on llvmlite alone.
"""
