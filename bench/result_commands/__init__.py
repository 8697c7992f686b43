"""Commands of ``edgellm bench`` on result files; each is named by its function."""
