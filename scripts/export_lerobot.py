"""Export the labels of a dataset to LeRobot's format; the same as ``prospect export``.

    # All sources.
    python scripts/export_lerobot.py export.dataset=outputs/dst_frames export.output_dir=outputs/lerobot

    # One source.
    python scripts/export_lerobot.py export.dataset=outputs/dst_frames export.output_dir=outputs/lerobot-wtag \\
        export.sources=[wtag]

Exit codes: 0 exported; 1 stopped or failed; 2 the settings or the dataset cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["export", *sys.argv[1:]], "python scripts/export_lerobot.py"))
