"""Train, evaluate and save a DST-SmolVLM2.

Examples:
    # The embedded default: a small model on simulated toy tasks, about 5 minutes on 2 CPU cores.
    python scripts/train.py

    # A real checkpoint on ProAssist data.
    python scripts/train.py model=smolvlm2_500m data=proassist data.root=data/proassist training.learning_rate=1e-5

    # Timelines whose videos are not there: simple pictures are drawn from the labels.
    python scripts/train.py data=proassist data.root=data/proassist \\
        data.frames=rendered

Groups and their files: prospect_hf/configs. Every key of transformers.TrainingArguments can be set, training.KEY=VALUE.
Exit codes: 0 done, 1 failed, 2 the settings or the data cannot be used.
"""

import sys

if __name__ == "__main__":
    import logging

    # bitsandbytes warns on import, on some processors, that a kernel of the Hub is not there; nothing here uses it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    # Imported here: the simulator's worker processes import this file again and need none of it.
    from prospect_hf.jobs.train import main

    sys.exit(main(sys.argv[1:], __doc__))
