"""The texts that models are read by default: our own, of several kinds."""

from __future__ import annotations

from pathlib import Path

PASSAGES: Path = Path(__file__).with_name("passages.txt")
"""Texts with a mark after each, as ``edgellm eval --task`` reads them."""
