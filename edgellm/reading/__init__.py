"""Bytes from disk into buffers: ``disk_reader`` reads ahead, ``read_plan`` says what.

``open_files`` keeps the files open, past the page cache; ``tuning`` finds out how a disk is best
read. Stands on ``checkpoint.buffer``, which says what is read to where.
"""
