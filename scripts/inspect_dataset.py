"""Check a dataset against its promises and show what is in it; the same as ``prospect inspect``.

    # A dataset on the disk: its figures, its label balance, and which promises it breaks.
    python scripts/inspect_dataset.py outputs/dst_frames

    # With the lengths of its sessions in tokens, and with the frames of the sessions that are shown.
    python scripts/inspect_dataset.py outputs/dst_frames inspect.tokenizer=outputs/tiny \\
        inspect.frames=outputs/simulated

Exit codes: 0 every promise is kept; 1 one is broken, or the run was stopped; 2 the folder is no dataset, or the
settings cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["inspect", *sys.argv[1:]], "python scripts/inspect_dataset.py"))
