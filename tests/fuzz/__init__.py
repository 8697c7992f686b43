"""Damaged input by the hundred thousand, at every door of the product.

``doors/`` has a module a door: whole examples of what comes in there, and what opens it.
``json_damage.py`` and ``byte_damage.py`` damage them by their structure; ``harness.py`` runs cases
and says what came of each; ``workers.py`` runs many in processes that may die, and adds them up.

    python tests/fuzz_doors.py --count 1000000 --jobs 2 --results FOLDER
"""
