"""Clusters on one machine: network namespaces, links of a delay and a rate, throttled disks."""
