"""Tiny rebuilt releases, each opened by us and by the tool that it was made for.

``kinds`` says what is built, ``oracles`` what it is held against; the rest builds and compares.
"""
