"""Build the frame rows of a corpus as a dataset: Parquet files with a card; the same as ``prospect dataset``.

    # The simulated corpus.
    python scripts/build_dataset.py

    # ProAssist's corpus in 8 processes; the same command continues a build that was stopped.
    python scripts/build_dataset.py data=proassist data.root=data/proassist dataset.processes=8

    # The sources' own annotation releases, data/annotations/{source}/.
    python scripts/build_dataset.py data=annotations data.root=data/annotations \\
        dataset.output_dir=outputs/dst_frames-annotations

    # With the pictures in the rows, to be kept on this machine.
    python scripts/build_dataset.py data=proassist data.root=data/proassist data.sources=[wtag] \\
        dataset.images=true dataset.output_dir=outputs/dst_frames-images

Exit codes: 0 built; 1 stopped or failed; 2 the settings or the data cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["dataset", *sys.argv[1:]], "python scripts/build_dataset.py"))
