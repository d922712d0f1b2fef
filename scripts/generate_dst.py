"""Make state labels for every video of a corpus; the same as ``prospect annotate``.

    # By meaning, for the simulated corpus.
    python scripts/generate_dst.py

    # ProAssist's corpus, by meaning, in 8 processes; the same command continues a run that was stopped or killed.
    python scripts/generate_dst.py data=proassist data.root=data/proassist labels.processes=8

    # What a language model would cost; nothing is asked.
    python scripts/generate_dst.py labels=llm data=proassist data.root=data/proassist labels.dry_run=true \\
        llm.usd_per_million_input=0.15 llm.usd_per_million_output=0.6

    # A language model where meaning is not sure, for 20 dollars at most; part 3 of 8.
    python scripts/generate_dst.py labels=hybrid data=proassist data.root=data/proassist labels.shard=3/8 \\
        llm.model=gpt-5-mini llm.usd_per_million_input=0.25 llm.usd_per_million_output=2 llm.max_usd=20

    # The videos that failed, once more.
    python scripts/generate_dst.py labels=llm data=proassist data.root=data/proassist llm.model=gpt-5-mini \\
        labels.retry_failed=true

Exit codes: 0 all videos have labels; 1 stopped, or some have none; 2 the settings cannot be used.
"""

import sys

if __name__ == "__main__":
    # Imported here: the worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["annotate", *sys.argv[1:]], "python scripts/generate_dst.py"))
