"""Train, evaluate and save a DST-SmolVLM2; the same as ``prospect train``.

    # A small model on simulated tasks, about 8 minutes on 2 CPU cores.
    python scripts/train.py

    # A SmolVLM2 checkpoint on ProAssist data.
    python scripts/train.py model=smolvlm2_500m data=proassist data.root=data/proassist training.learning_rate=1e-5

    # Recordings whose videos are not at hand: simple pictures are drawn from the labels.
    python scripts/train.py data=proassist data.root=data/proassist data.frames=rendered

    # Every setting, with its type, default and meaning.
    python scripts/train.py --help

Exit codes: 0 done; 1 stopped or failed; 2 the settings or the data cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the simulator's worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["train", *sys.argv[1:]], "python scripts/train.py"))
