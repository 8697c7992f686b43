"""Programs that talk to a server: how each is pointed at it, and undone again.

``table.py`` has the programs, ``setup.py`` is what one of them needs, ``served.py`` asks a server
for its models, and ``written.py`` changes a program's own settings so that they can be restored.
"""
