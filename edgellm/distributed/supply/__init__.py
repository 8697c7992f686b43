"""Parts of a model for machines that lack it: told of, sent, kept in folders of their own."""
