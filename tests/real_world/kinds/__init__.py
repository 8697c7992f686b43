"""The table of releases: importing this package fills ``release.RELEASES``."""

from real_world.kinds import folded, gguf, llama2, llama3, mistral, phi, qwen

__all__ = ["folded", "gguf", "llama2", "llama3", "mistral", "phi", "qwen"]
