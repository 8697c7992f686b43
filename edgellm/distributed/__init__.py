"""A model on several machines, behind the seam ``models.layers.Layers``.

The first machine has embedding, output matrix, tokenizer and sampler; each machine has some of the
layers (``parts/``), its own KV caches, memory and disk, and reads only its own layers. Hidden
states go from window to window of layers. Or each machine has some rows of every matrix, and
what all make of a token is gathered. ``links/`` joins machines by authenticated connections;
``members/`` is what runs on the others, ``remote/`` how the first one uses them; ``cluster.py``
makes a model of all.
"""
