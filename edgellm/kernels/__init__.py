"""Products, norms and attention for plain processors, compiled for the one that is here. It knows nothing of MLX."""
