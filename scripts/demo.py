"""Follow a video or a camera with a trained DST-SmolVLM2, in the browser.

Examples:
    # On this machine: http://127.0.0.1:7860
    python scripts/demo.py outputs/tiny --port 7860

    # For others on the network.
    python scripts/demo.py outputs/tiny --host 0.0.0.0

    # The files of a Hugging Face Space that shows a model of the Hub.
    python scripts/demo.py OWNER/NAME --space outputs/space

Exit codes: 0 stopped or written, 1 failed, 2 the model, the port or the folder cannot be used.
"""

import sys

if __name__ == "__main__":
    import argparse
    import logging
    from pathlib import Path

    from prospect_hf.errors import UsageError

    # bitsandbytes warns on import, on some processors, that a kernel of the Hub is not there; nothing here uses it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained model; with --space a model of the Hub, OWNER/NAME")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--space", type=Path, metavar="FOLDER", help="write a Space's files and serve nothing")
    arguments = parser.parse_args()
    try:
        from prospect_hf.streaming.demo.app import build_app, launch, write_space

        if arguments.space is None:
            launch(build_app(arguments.model), arguments.host, arguments.port)
        else:
            print(*write_space(arguments.space, arguments.model), sep="\n")
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
