"""The loop of an oracle: answers requests until its input ends."""

import json
import os
import sys
import traceback


def serve(answer):
    """Answer each line of standard input by ``answer(request)``, a line each."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    for line in sys.stdin:
        try:
            said = answer(json.loads(line))
        except Exception:
            said = {"failed": traceback.format_exc()}
        out.write(json.dumps(said) + "\n")
        out.flush()
