"""Several machines learn one adapter: each has the whole model, and a share of each step.

``learner.py`` is the first machine's side: it sends numbers and records, and sums derivatives;
``session.py`` is the others'. ``shares.py`` says who gets which records, ``share_memory.py`` what a
share takes, ``messages.py`` how numbers and records are sent, and ``together.py`` calls the
machines. Stands on ``learners`` and ``distributed``.
"""
