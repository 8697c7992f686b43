"""Facts laid out for reading: a model, a plan, what was converted, the cost of a completion.

Each over ``console.rows``, which writes names and values in two columns.
"""
