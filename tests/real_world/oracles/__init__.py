"""The other tools, each in a process of its own: a line of JSON in, a line of JSON out."""
