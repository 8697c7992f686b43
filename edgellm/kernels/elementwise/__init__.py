"""Kernels that go over tokens' features: norm, rotary positions, gate, bias, packing.

A file for each kernel, as ``kernels/catalog.py`` names them. They stand on ``kernels/codegen``;
rotary positions also write the cache, through ``attention/kv_storage.py``.
"""
