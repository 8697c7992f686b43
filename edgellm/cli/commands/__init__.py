"""One file a command of ``edgellm``, named as it is.

Each reads its options, calls the library and shows the result; what two of them need is in
``cli/common``.
"""
