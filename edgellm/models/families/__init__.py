"""Decoder blocks of families that differ from LLaMA's, each from ``models.llama``'s."""
