"""Compare two sets of state labels; the same as ``prospect compare-dst``.

    # The labels of two aligners; the second set against the first.
    python scripts/compare_dst.py outputs/labels-words outputs/labels-semantic compare_dst.root=data/proassist

    # Labels against those in the dialogs of a corpus.
    python scripts/compare_dst.py data/proassist outputs/labels-semantic \\
        compare_dst.output_dir=outputs/compare-semantic

    # Two versions in one file, at other keys than dst.
    python scripts/compare_dst.py labels.json#dst_llm labels.json#dst_plan

Exit codes: 0 all videos are compared; 1 stopped, or some videos are in one set alone or their labels cannot be used; 2
the settings cannot be used, or no video can be compared.
"""

import sys

from prospect_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare-dst", *sys.argv[1:]], "python scripts/compare_dst.py"))
