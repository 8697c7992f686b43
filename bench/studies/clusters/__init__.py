"""Clusters on one machine: network namespaces, links of a delay and a rate, throttled disks.

``training.py`` measures training on two machines without any of that.
"""
