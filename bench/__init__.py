"""Measurements of models and machines, as records."""
