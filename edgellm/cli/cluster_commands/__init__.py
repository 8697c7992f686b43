"""``edgellm cluster``: the machines that compute a model together."""
