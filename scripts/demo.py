"""Follow a video or a camera with a trained DST-SmolVLM2, in the browser; the same as ``prospect demo``.

    # On this machine: http://127.0.0.1:7860
    python scripts/demo.py outputs/tiny --port 7860

    # For others on the network.
    python scripts/demo.py outputs/tiny --host 0.0.0.0

    # The files of a Hugging Face Space that shows a model of the Hub.
    python scripts/demo.py OWNER/NAME --space outputs/space

Exit codes: 0 stopped or written; 1 failed; 2 the model, the port or the folder cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["demo", *sys.argv[1:]], "python scripts/demo.py"))
