"""Parts of a model: which machine has which layers, how they load and compute, what is sent."""
