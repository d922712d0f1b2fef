"""Encode the frames of videos once, for training and evaluation; the same as ``prospect encode``.

    # The frames that training reads, which scripts/train.py with the same settings then finds.
    python scripts/encode_frames.py model=smolvlm2_500m data=proassist data.root=data/proassist

    # The plan alone: videos, frames, bytes, and hours at a measured rate.
    python scripts/encode_frames.py model=smolvlm2_500m data=proassist data.root=data/proassist encode.dry_run=true

    # All stored frames below a folder, in half the space, with a trained model; part 3 of 8.
    python scripts/encode_frames.py model.name_or_path=outputs/smolvlm2_500m encode.root=data/frames \\
        encode.dtype=float16 encode.shard=3/8

    # On the two GPUs of a machine.
    torchrun --nproc_per_node 2 scripts/encode_frames.py model=smolvlm2_500m data=proassist data.root=data/proassist

Exit codes: 0 done; 1 stopped or failed; 2 the settings or the data cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["encode", *sys.argv[1:]], "python scripts/encode_frames.py"))
