"""A training run: epochs over sequences, steps, and files from which it goes on bit for bit.

``trainer.py`` takes the steps; ``settings.py`` says how, ``order.py`` which items are in each
and ``saved_state.py`` is all that it has to know to go on. ``request.py`` is what a run is asked
for; ``preparation.py`` reads its data, plans its memory and opens its learner.
"""
