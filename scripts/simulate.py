"""Write a simulated clip with its plan, or a simulated corpus; the same as ``prospect simulate``.

    # A clip that the model of `make train` understands, and beside it clip.plan.txt.
    python scripts/simulate.py --clip clip.mp4

    # A corpus in ProAssist's format.
    python scripts/simulate.py simulate.root=outputs/simulated-2 simulate.seed=2

Exit codes: 0 written; 1 stopped or failed; 2 the settings or the folder cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the simulator's worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["simulate", *sys.argv[1:]], "python scripts/simulate.py"))
