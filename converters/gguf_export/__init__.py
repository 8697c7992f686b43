"""Gguf export."""
