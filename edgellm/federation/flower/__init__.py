"""Flower carries tasks and answers: its SuperLink's door for clients, and a client of that.

Only the modules of this folder import Flower, inside their functions.
"""
