import edgellm

plan = edgellm.plan("stories", memory="1GB")
print(1 / plan.seconds_per_token, "tokens per second")  # refused
