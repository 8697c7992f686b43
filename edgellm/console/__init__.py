"""Everything that a person reads: wording, colour, and which stream it goes to.

A view for each thing that is shown (completion, chat, diagnosis, error; ``tables`` for facts) over
``terminal`` and ``units``. No code of a model is imported here.
"""
