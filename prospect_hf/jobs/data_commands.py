"""The commands that make, check and bring along data."""

from __future__ import annotations

from prospect_hf.jobs.command_entry import DATA, MODEL, Command

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

ANNOTATE = Command(
    name="annotate",
    summary="Make state labels for every video of a corpus: by meaning, by a language model, or by both.",
    examples=[
        ("By meaning, for the simulated corpus.", ""),
        (
            "ProAssist's corpus, by meaning, in 8 processes; the same command continues a run that was stopped.",
            "data=proassist data.root=data/proassist labels.processes=8",
        ),
        (
            "What a language model would cost; nothing is asked.",
            "labels=llm data=proassist data.root=data/proassist labels.dry_run=true llm.usd_per_million_input=0.15"
            " llm.usd_per_million_output=0.6",
        ),
        (
            "A language model where meaning is not sure, for 20 dollars at most; part 3 of 8.",
            "labels=hybrid data=proassist data.root=data/proassist labels.shard=3/8 llm.model=gpt-5-mini"
            " llm.usd_per_million_input=0.25 llm.usd_per_million_output=2 llm.max_usd=20",
        ),
        (
            "The videos that failed, once more.",
            "labels=llm data=proassist data.root=data/proassist llm.model=gpt-5-mini labels.retry_failed=true",
        ),
    ],
    run="prospect_hf.jobs.annotate:run",
    settings="annotate",
    groups={
        "labels": "prospect_hf.annotate.arguments:LabelsArguments",
        "data": DATA,
        "llm": "prospect_hf.llm.arguments:LLMArguments",
    },
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
    places=["inspect.dataset"],
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

COMPARE_DST = Command(
    name="compare-dst",
    summary="Compare two sets of state labels: figures by source, a table of the videos, a page with both timelines.",
    examples=[
        (
            "The labels of two aligners; the second set against the first.",
            "outputs/labels-words outputs/labels-semantic compare_dst.root=data/proassist",
        ),
        (
            "Labels against those in the dialogs of a corpus.",
            "data/proassist outputs/labels-semantic compare_dst.output_dir=outputs/compare-semantic",
        ),
        ("Two versions in one file, at other keys than dst.", "labels.json#dst_llm labels.json#dst_plan"),
    ],
    run="prospect_hf.jobs.compare_dst:run",
    settings="compare_dst",
    writes="compare_dst",
    groups={"compare_dst": "prospect_hf.annotate.comparison.arguments:CompareDstArguments"},
    places=["compare_dst.a", "compare_dst.b"],
)
