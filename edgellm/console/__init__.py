"""Everything that a person reads: wording, colour, and which stream it goes to.

A view for each thing that is shown (completion, diagnosis, error; ``tables`` for facts, over
``rows``) over ``terminal`` and ``units``; ``terminal`` over ``streams``. No code of a model is
imported here.
"""
