"""``edgellm`` and ``python -m edgellm``: the entry of the command line.

The signals are armed before anything is imported that takes time.
"""

import sys

from edgellm.cli.signals.stop_signals import STOP


def main() -> int:
    """Run the process's own command line and return its exit code."""
    STOP.arm()
    try:
        from edgellm.cli.app import main as run

        code = run()
    except BaseException:
        # after a signal, whatever foreign code has made of it
        if not STOP.received:
            raise
    finally:
        STOP.command_ended()
    if STOP.received:
        return 128 + STOP.received
    return code


if __name__ == "__main__":
    sys.exit(main())
