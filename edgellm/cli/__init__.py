"""The command line; it stands on everything else.

``app`` runs it and holds the table of commands, ``command_group`` imports a command when it is
called, ``usage_errors`` words what was typed wrong; ``stop_signals`` and ``terminal_state`` end it
in good order.
"""
