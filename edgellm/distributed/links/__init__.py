"""Connections between machines: addresses, the secret, signed frames, heartbeats."""
