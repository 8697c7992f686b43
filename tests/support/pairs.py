"""Pairs of answers that tiny models learn to tell apart."""

from support.training import sequences

from edgellm.training.micro_batch import PreferencePair


def pairs(lengths=((9, 11), (17, 6), (5, 5))):
    """Pairs of random tokens; of each sequence the first third is not learned."""
    flat = sequences([length for pair in lengths for length in pair])
    return [PreferencePair(*flat[at : at + 2]) for at in range(0, len(flat), 2)]
