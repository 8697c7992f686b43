"""Tokenizer files that are made: ``byte_level.py`` a tokenizer.json, ``spm_file.py`` a tokenizer.model.

Formats whose tokenizer has another form (GGUF, Meta's, llama2.c's) come here with their tokens.
"""
