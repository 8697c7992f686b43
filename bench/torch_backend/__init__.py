"""Torch backend."""
