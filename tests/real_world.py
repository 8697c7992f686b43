"""Rebuild real releases small, and hold each against the tool that it was made for.

python tests/real_world.py
python tests/real_world.py --only "Llama 3" --only Qwen
python tests/real_world.py --oracle PYTHON --results FILE
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from real_world.compare import Row, compare
from real_world.kinds import RELEASES
from real_world.peers import Peers
from real_world.report import lines, versions_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="releases with this in name or kind")
    parser.add_argument("--oracle", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--results", type=Path, help="a JSON file for all that was found")
    parser.add_argument("--backend", default="auto", help="mlx: our model in MLX on a CPU too")
    parser.add_argument("--keep", type=Path, help="a folder that keeps what is built")
    arguments = parser.parse_args()
    chosen = [one for one in RELEASES.values() if wanted(one, arguments.only)]
    rows = []
    with Peers(arguments.oracle) as peers:
        for number, release in enumerate(chosen):
            start = time.perf_counter()
            row = held(release, number, arguments, peers)
            rows.append(row)
            for text in lines(row, time.perf_counter() - start):
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
        versions = versions_of(peers)
    right = sum(row.right for row in rows)
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    sys.stdout.write(f"\n{right} of {len(rows)} right\n{said}\n")
    if arguments.results:
        found = {"versions": versions, "rows": [row.as_dict() for row in rows]}
        arguments.results.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return 0 if right == len(rows) else 1


def wanted(release, only):
    about = f"{release.name} {release.kind}".lower()
    return not only or any(part.lower() in about for part in only)


def held(release, number, arguments, peers):
    """The row of a release; whatever fails is a difference too."""
    with tempfile.TemporaryDirectory(prefix="edgellm-real-world-") as folder:
        place = Path(folder)
        if arguments.keep:
            place = arguments.keep / f"{number:02d}"
            place.mkdir(parents=True)
        try:
            return compare(release, place, peers, backend=arguments.backend)
        except Exception as error:
            text = str(error) or traceback.format_exc()
            return Row(
                release.name,
                release.kind,
                release.oracle,
                wrong=[f"{type(error).__name__}: {text}"],
            )


if __name__ == "__main__":
    sys.exit(main())
