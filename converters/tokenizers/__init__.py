"""Writers of tokenizers: ``byte_level`` of tokenizer.json, ``spm_file`` of tokenizer.model.

Formats whose tokenizer has another form (GGUF, Meta's, llama2.c's) come here with their tokens.
"""
