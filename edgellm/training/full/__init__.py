"""Full fine-tuning and pretraining: every number of a small model is learned, in float32.

``weights.py`` reads the numbers and ``model_folder.py`` writes them as a model folder;
``passes.py`` goes through the model there and back, with the layer of ``layer.py`` and the loss of
``head.py``; ``arithmetic.py`` multiplies. ``memory.py`` says what all of it takes.
"""
