"""One file a command of ``edgellm bench``; ``run`` is the one without a name.

Each reads its options, measures, and prints records; ``common`` has what they share.
"""
