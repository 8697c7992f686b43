"""The model folder, without reading a weight: config, tensors, and what is read to where.

Start at ``checkpoint`` (all of it, checked); ``folder`` knows the files, ``model_config`` and
``family_configs`` the model, ``quantization`` how matrices are stored, ``buffer`` where they lie in
memory. Stands on ``files`` and ``settings``.
"""
