"""Reading a command line: plain values, options and commands of peer tools, usage errors."""
