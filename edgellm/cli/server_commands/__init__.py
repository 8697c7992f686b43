"""Commands around the server: ``serve`` and ``launch``, and how their options are read."""
