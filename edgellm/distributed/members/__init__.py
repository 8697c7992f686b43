"""The other machines' own side: they wait for a cluster, and compute its windows."""
