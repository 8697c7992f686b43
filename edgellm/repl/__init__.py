"""Repl."""
