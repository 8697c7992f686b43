"""Studies of training: what it computes, and what paging costs it.

``beside_peft.py`` compares its numbers with those of other libraries, ``paged.py`` sets layers that
are read as they are visited beside layers in memory.
"""
