"""The command line; it stands on everything else.

``app`` runs it and holds the table of commands, ``adapter_app`` and ``cluster_app`` those of two
groups; ``command_group`` imports a command when it is called; ``signals``
end it in good order.
"""
