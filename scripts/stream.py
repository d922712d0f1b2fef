"""Follow a video, live or from disk, with a trained DST-SmolVLM2; the same as ``prospect stream``.

    # A video with a plan: a live view; then trace, timeline page and subtitles in outputs/stream.
    python scripts/stream.py stream.model=outputs/tiny stream.source=clip.mp4 stream.goal="Assemble the toy" \\
        stream.plan_file=plan.txt

    # A session of a corpus, compared with its labels, with an annotated video.
    python scripts/stream.py stream.root=outputs/simulated stream.session=wtag.T-sim-test-00001__view0.talk_some_0 \\
        stream.annotate=true

    # A camera, frames dropped by time where the model is slower; a question after 20 seconds.
    python scripts/stream.py stream.source=webcam:0 stream.live=true stream.plan_file=plan.txt \\
        'stream.user_texts=["20 What comes next?"]'

    # A plan that changes at given times.
    python scripts/stream.py stream.source=clip.mp4 stream.plan_file=plan.txt stream.plan_changes=changes.json

    # A small context, cut in the middle.
    python scripts/stream.py stream.source=clip.mp4 stream.plan_file=plan.txt context=drop_middle \\
        context.max_tokens=1024

    # Every setting, with its type, default and meaning.
    python scripts/stream.py --help

A stopped stream continues with stream.restore=true.
Exit codes: 0 followed to the end; 1 stopped or broken off; 2 the settings or the source cannot be used.
"""

import sys

if __name__ == "__main__":
    from prospect_hf.cli import main

    sys.exit(main(["stream", *sys.argv[1:]], "python scripts/stream.py"))
