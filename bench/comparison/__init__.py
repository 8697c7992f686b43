"""Comparison: result files side by side, and a change told from noise.

Stands on ``records``.
"""
