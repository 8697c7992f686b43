"""``edgellm bench``: measurements of models and machines, as records.

``app`` holds the table of commands; every other folder is one kind of measurement, or what those
stand on.
"""
