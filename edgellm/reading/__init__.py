"""Bytes from disk into buffers: ``disk_reader`` reads ahead in threads, ``read_plan`` cuts the reads.

``open_files`` keeps the files open, past the page cache; ``tuning`` finds out how a disk is best
read. Stands on ``checkpoint.buffer``, which says what is read to where.
"""
