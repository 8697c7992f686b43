"""Instruction sets of which one is another with more to it."""

from edgellm.kernels.codegen.isa import ISAS


def below(isa):
    """The instruction set that one extends without wider vectors, or None.

    What the extension is not for is the same code in both.
    """
    for other in ISAS.values():
        same = (other.machine, other.lanes) == (isa.machine, isa.lanes)
        if same and set(other.features) < set(isa.features):
            return other
    return None
