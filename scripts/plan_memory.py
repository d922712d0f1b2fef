"""Say what a training setting takes on a GPU, before anything is loaded; the same as ``prospect plan-memory``.

    # QLoRA of the 2.2B model with clips of 4,096 tokens on a card with 24 GiB.
    python scripts/plan_memory.py model=smolvlm2_2b training=qlora data.max_seq_len=4096 plan.gpu_memory=24GiB

    # The three published sizes at 1, 4, 9 and all tokens a frame.
    python scripts/plan_memory.py training=qlora data.max_seq_len=4096 plan.table=true

    # How long an epoch over rows that are built already takes on an H100.
    python scripts/plan_memory.py model=smolvlm2_500m data.rows=outputs/dst_frames plan.card=h100

    # Every setting, with its type, default and meaning.
    python scripts/plan_memory.py --help

Exit codes: 0 it fits; 1 it does not fit, stopped or failed; 2 the settings cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["plan-memory", *sys.argv[1:]], "python scripts/plan_memory.py"))
