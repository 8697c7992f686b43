"""Federated learning: adapters learned where the data are, and averaged elsewhere.

``task.py`` is what a server asks of clients, and what they answer; ``factors.py`` lays an adapter's
numbers out as a row; ``aggregation.py`` averages the products of factors; ``privacy.py`` clips and
blurs what a client sends. ``local_learning.py`` learns a round on a client, ``rounds.py`` asks for
one after another on the server, and ``saved_rounds.py`` is where it goes on. ``invitations.py`` has
the keys of clients. Nothing here knows how messages travel: ``flower/`` carries them.
"""
