"""Files of our own, written whole or not at all, and of strangers, read within bounds.

``atomic`` writes, ``strict_json`` reads and writes JSON, ``locations`` names the cache folder.
Imports only ``errors``.
"""
