"""Parts of a model for machines that lack it: told of, sent, and kept in folders of their own."""
