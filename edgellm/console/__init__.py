"""Every word that a person reads: wording, colour, and which stream it goes to."""
