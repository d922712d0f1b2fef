"""All measurements of the data system, one table after the other.

    python benchmarks/data.py                         # about 15 minutes on two cores
    python benchmarks/data.py rows scale              # some of them

rows: labels to rows and rows to sessions (``data_rows.py``). scale: a million rows and a second million
(``data_scale.py``). frames: random access to each form of stored frames (``frames.py``). features: encoding, and epochs
from features (``data_features.py``). wait: how long a training step waits for its data (``data_wait.py``). Each runs in
a process of its own and compares with a stated simple way.

Exit codes: 0 done; 1 a comparison failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = {
    "rows": "data_rows.py",
    "scale": "data_scale.py",
    "frames": "frames.py",
    "features": "data_features.py",
    "wait": "data_wait.py",
}


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in asked if part not in PARTS]:
        parser.error(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    failed = False
    for part in asked:
        print(f"\n## {part}\n", flush=True)
        failed |= subprocess.run([sys.executable, Path(__file__).with_name(PARTS[part])], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
