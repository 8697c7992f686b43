"""Commands for the models on this machine: list, pull and rm."""
