import edgellm

sampling = edgellm.Sampling(temperature=0.7)
sampling.temperature = 0.9  # refused
