"""Join the rows of a dataset with frames that you extracted; the same as ``prospect join``.

    # Are these the right frames? Nothing is written.
    python scripts/join_frames.py join.dataset=outputs/dst_frames join.frames=data/proassist join.check_only=true

    # The rows with their pictures, without those of videos that you do not have.
    python scripts/join_frames.py join.dataset=outputs/dst_frames join.frames=data/proassist \\
        join.output_dir=outputs/dst_frames-images join.on_error=skip join.processes=4

Exit codes: 0 joined; 1 stopped or failed; 2 the settings, the dataset or the frames cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["join", *sys.argv[1:]], "python scripts/join_frames.py"))
