"""Two machines of edgellm beside two of llama.cpp and of mlx-lm, on one link, in turns."""
