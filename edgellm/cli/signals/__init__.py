"""Signals end the process in good order, whenever they come, and the terminal is as it was.

``stop_signals`` takes them over; ``signal_watch`` wakes a main thread that blocks;
``terminal_state`` gives the terminal back.
"""
