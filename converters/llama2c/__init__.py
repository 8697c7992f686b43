"""Llama2c."""
