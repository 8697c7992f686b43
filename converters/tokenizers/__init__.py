"""Writers of tokenizers: ``byte_level.py`` of tokenizer.json, ``spm_file.py`` of tokenizer.model.

Formats whose tokenizer has another form (GGUF, Meta's, llama2.c's) come here with their tokens.
"""
