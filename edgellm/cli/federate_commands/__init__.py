"""``edgellm federate``: an adapter is learned where the data are, and averaged elsewhere."""
