"""Merge the adapters of a folder into their base model; the same as ``prospect merge``.

    # A whole model, which needs neither its base nor peft.
    python scripts/merge.py outputs/qlora outputs/merged

    # The base model lies elsewhere than it did in training.
    python scripts/merge.py outputs/qlora outputs/merged --base models/SmolVLM2-2.2B-Instruct

    # Into the base's own weights, and not into the 4-bit ones that the adapters were trained on.
    python scripts/merge.py outputs/qlora outputs/merged --original-base

Exit codes: 0 written; 1 failed; 2 the folder or its base model cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["merge", *sys.argv[1:]], "python scripts/merge.py"))
