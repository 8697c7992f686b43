"""Models that nobody has trained: a shape, and weights that are drawn for it.

``model_shape.py`` says which tensors there are; ``source.py`` draws weights to measure a machine
with, ``untrained.py`` those that training begins with; ``synthesize.py`` writes the folder.
"""

from edgellm.converters.synthetic.source import SyntheticSource
from edgellm.converters.synthetic.synthesize import synthesize
from edgellm.converters.synthetic.untrained import UntrainedSource

__all__ = ["SyntheticSource", "UntrainedSource", "synthesize"]
