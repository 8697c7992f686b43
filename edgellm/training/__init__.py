"""Training: adapters of models that may be larger than memory, a layer at a time.

``trained_model.py`` opens a model; ``gradients.py`` goes through its layers there and back.
``layer_visits.py`` has their weights read in that order, ``kept_inputs.py`` keeps what goes into
them, ``adapted_block.py`` is a layer with low-rank changes, and ``operations`` has its parts with
derivatives. ``micro_batch.py`` has sequences side by side, ``low_rank.py`` the numbers that are
learned, ``optimizer.py`` the step that they take, and ``adapter_folder.py`` writes them. Stands on
``models`` and ``runtime``.
"""
