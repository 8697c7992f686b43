"""Models on this machine: bundled, in the Hub's cache, converted by us, or folders.

``names`` tells their names in a few milliseconds, for completion in a shell; ``survey`` looks into
them; ``removal`` deletes what this program or the Hub's library has put there.
"""
