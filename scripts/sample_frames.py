"""Sample a folder of videos into the frame files of a source; the same as ``prospect sample``.

    # All videos below a folder, 2 frames a second, 384 pixels wide and high.
    python scripts/sample_frames.py sample.videos=videos/wtag sample.root=data/proassist sample.source=wtag

    # Part 3 of 8, as an array of jobs runs them.
    python scripts/sample_frames.py sample.videos=videos/ego4d sample.root=data/proassist sample.source=ego4d \\
        sample.names=groups.csv sample.shard=3/8

A run that was stopped or killed continues where it was: what is sampled already is left as it is.

Exit codes: 0 all videos are sampled; 1 stopped, or some videos cannot be read; 2 the settings cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["sample", *sys.argv[1:]], "python scripts/sample_frames.py"))
