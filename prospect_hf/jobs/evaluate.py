"""The evaluation job: a model and a corpus in; predictions, figures with intervals, and one report out."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.encode import encode_sessions, encoded_frames
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.baselines import baseline_predictions
from prospect_hf.evaluation.corpus import Corpus, data_of, load_corpus
from prospect_hf.evaluation.judge.judge import prompt_hash
from prospect_hf.evaluation.judge.judged_runs import judge_run
from prospect_hf.evaluation.predictions import Prediction, PredictionStore
from prospect_hf.evaluation.report.overview import overview_table
from prospect_hf.evaluation.report.page import write_report
from prospect_hf.evaluation.report.results import run_result, write_results
from prospect_hf.evaluation.runs import Run, predict_missing, workers
from prospect_hf.evaluation.score import embed, score_session, source_frequencies
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.evaluation.stamp import baseline_stamp, common_stamp
from prospect_hf.hub.evaluation_entries import card_of, write_entries
from prospect_hf.hub.weights import WEIGHTS_KEY
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.terminal import say
from tracking_dst_smolvlm import Tracking

logger = logging.getLogger(__name__)

# Keys of a stamp that predictions do not depend on; model_revision covers the weights.
NOT_IN_PREDICTIONS = ("model", "data", "data_fingerprint", "split", "sources", "held_out_sources", "sessions", "limit",
                      "encoder", "draws", "tokenization", "machine", WEIGHTS_KEY)  # fmt: skip


# Files of the output folder that are made of results.json.
MADE_OF_RESULTS = ("report.html", "model-index.yaml", "eval_results.yaml")


@dataclass(frozen=True)
class MadeRun:
    """A run with its predictions: how it was made, and one prediction for each session of the corpus."""

    stamp: dict[str, Any]
    predictions: list[Prediction]


def run(
    evaluate: EvaluateArguments,
    data: Mapping[str, Any],
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
    llm: LLMArguments,
) -> None:
    """Evaluate one model: predictions, ``results.json``, report page and entries for its card.

    Args:
        evaluate: what is evaluated, and how.
        data: the data settings that are given; all others are those that the model was trained with.
        context, tracking, decoding: settings of the streams.
        llm: the language model that judges, with ``evaluate.judge``.
    """
    model_folder, output = Path(evaluate.model), Path(evaluate.output_dir)
    if output.exists() and model_folder.exists() and output.samefile(model_folder):
        raise UsageError(
            f"evaluate.output_dir={output} is the model's folder: its results.json is the training's; give another."
        )
    data_args = data_of(model_folder, data)
    if evaluate.card:
        card_of(model_folder)  # a card that cannot be used fails here, and not after hours of streams
    client = LLMClient(llm) if evaluate.judge else None
    encoder = SentenceEncoder(evaluate.encoder, Path(data_args.cache_dir)) if evaluate.encoder else None
    if encoder is not None:
        encoder(["ready"])  # an encoder that cannot be used fails here, and not after hours of streams
    check_controls(evaluate, tracking)
    model, processor = load_trained(model_folder)
    corpus = load_corpus(evaluate, data_args, processor)
    frames = encoded_frames(model, corpus.reader, corpus.sessions, data_args)

    stamp = common_stamp(evaluate, corpus, model, encoder) | {"features": frames.expected.dtype}
    planned = planned_runs(evaluate, stamp, corpus, frames, context, tracking, decoding)
    made = make_runs(evaluate, evaluate.model, planned, corpus, model, processor)
    if evaluate.blind is not None:
        made |= make_blind_run(evaluate, evaluate.blind, corpus, model.config.fps, encoder, context, tracking, decoding)
    if evaluate.baselines:
        seed, every_s = evaluate.baseline_seed, evaluate.baseline_every_s
        for name, predictions in baseline_predictions(corpus, model.config.fps, seed, every_s).items():
            made[name] = MadeRun(baseline_stamp(stamp, name, seed), predictions)

    scored = score_runs(made, corpus.sessions, model.config.fps, tracking.policy, encoder)
    results = {
        name: run_result(name, made[name].stamp, of_run, corpus.fingerprints, evaluate.draws)
        for name, of_run in scored.items()
    }
    # Written before a judge is asked, so that a failure of the judge loses nothing.
    written = write(output, results)
    if client is not None:
        results |= judge_streams(client, evaluate, made, scored, corpus)
        written = write(output, results)
    say(overview_table(written["runs"]))
    entries = write_entries(output, written, evaluate.dataset_id, model_folder if evaluate.card else None)
    say(f"\n{', '.join(map(str, [output / 'results.json', output / 'report.html', *entries]))}")


def make_runs(
    args: EvaluateArguments,
    model_folder: str,
    planned: Sequence[tuple[Run, dict[str, Any]]],
    corpus: Corpus,
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
) -> dict[str, MadeRun]:
    """The runs of one model by name, with the predictions that are missing made first."""
    made = {}
    with workers(Path(model_folder), args.processes) as pool:
        for job, its_stamp in planned:
            predict_missing(job, corpus.sessions, model, processor, pool)
            made[job.name] = MadeRun(its_stamp, [job.store.load(session) for session in corpus.sessions])
    return made


def make_blind_run(
    args: EvaluateArguments,
    folder: str,
    corpus: Corpus,
    fps: float,
    encoder: SentenceEncoder | None,
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
) -> dict[str, MadeRun]:
    """The run of the model in ``folder``, which learned from grey pictures and sees nothing else.

    Raises:
        UsageError: it has another frame rate than the evaluated model, ``fps``.
    """
    model, processor = load_trained(Path(folder))
    if model.config.fps != fps:
        raise UsageError(f"evaluate.blind={folder} reads {model.config.fps:g} frames a second, evaluate.model {fps:g}.")
    reader = FrameReader(corpus.reader.root, "blank", processor)
    frames = encode_sessions(model, reader, corpus.sessions, Path(corpus.data.cache_dir) / "features")
    # Its thresholds are its own.
    own = replace(args, model=folder, speaking_threshold=None, dst_update_threshold=None)
    stamp = common_stamp(own, corpus, model, encoder) | {"features": frames.expected.dtype, "frames": "blank"}
    settings = {"context": stream_contexts(args, context)[0], "tracking": tracking, "decoding": decoding}
    planned = [planned_run(args, "control, blind", "control", stamp, corpus, frames, settings)]
    return make_runs(args, folder, planned, corpus, model, processor)


def score_runs(
    made: Mapping[str, MadeRun],
    sessions: Sequence[SessionRows],
    fps: float,
    policy: str,
    encoder: SentenceEncoder | None,
) -> dict[str, ScoredRun]:
    """Score every run; stream matching and text metrics need a sentence encoder."""
    embeddings = None if encoder is None else embed(encoder, sessions, [of_run.predictions for of_run in made.values()])
    frequencies = {} if encoder is None else source_frequencies(sessions)
    scored = {}
    for name, of_run in made.items():
        thresholds = of_run.stamp["speaking_threshold"], of_run.stamp["dst_update_threshold"]
        of_sessions = [
            score_session(session, one, fps, thresholds, policy, embeddings, frequencies.get(session.source))
            for session, one in zip(sessions, of_run.predictions, strict=True)
        ]
        scored[name] = ScoredRun(of_sessions, fps)
    return scored


def judge_streams(
    client: LLMClient,
    args: EvaluateArguments,
    made: Mapping[str, MadeRun],
    scored: Mapping[str, ScoredRun],
    corpus: Corpus,
) -> dict[str, dict[str, Any]]:
    """The results of the stream runs with a judge's marks in them."""
    llm = client.arguments
    asked = {"model": llm.model, "address": client.address, "votes": args.judge_votes, "prompt": prompt_hash()}
    results = {}
    for name, of_run in scored.items():
        if made[name].stamp["mode"] == "stream":
            judged = judge_run(client, args.judge_votes, of_run)
            marked = of_run.with_counts(judged.counts)
            stamp = made[name].stamp | {"judge": asked | {"temperature": llm.temperature}}
            results[name] = run_result(name, stamp, marked, corpus.fingerprints, args.draws, judged)
    logger.info("The judge: %s", ", ".join(f"{name} {value}" for name, value in client.spent.items()))
    return results


def write(output: Path, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``results.json`` and the report page, and return the content of the former.

    What was made of earlier results is removed first: a run that is killed leaves no page beside others' results.
    """
    for name in MADE_OF_RESULTS:
        (output / name).unlink(missing_ok=True)
    written = write_results(output / "results.json", list(results.values()))
    write_report(output / "report.html", written)
    return written


def planned_runs(
    args: EvaluateArguments,
    stamp: Mapping[str, Any],
    corpus: Corpus,
    frames: FrameFeatures,
    context: Context,
    tracking: Tracking,
    decoding: Decoding,
) -> list[tuple[Run, dict[str, Any]]]:
    """The runs of the evaluated model that were asked for, each with its stamp."""
    asked: list[tuple[str, str, dict[str, Any]]] = []
    if "offline" in args.modes:
        asked.append(("offline", "offline", {}))
    if "stream" in args.modes:
        for chosen in stream_contexts(args, context):
            settings = {"context": chosen, "tracking": tracking, "decoding": decoding}
            asked.append((f"stream, {chosen.strategy}", "stream", settings))
    for window in args.windows:
        asked.append((f"control, window {window}", "control", {"window": window, "tracking": tracking}))
    return [planned_run(args, name, mode, stamp, corpus, frames, settings) for name, mode, settings in asked]


def planned_run(
    args: EvaluateArguments,
    name: str,
    mode: str,
    stamp: Mapping[str, Any],
    corpus: Corpus,
    frames: FrameFeatures,
    settings: Mapping[str, Any],
) -> tuple[Run, dict[str, Any]]:
    """A run and its stamp; ``settings`` are those of ``Run`` beyond what all runs have."""
    its_stamp = dict(stamp) | {"mode": mode}
    its_stamp |= {key: value if key == "window" else asdict(value) for key, value in settings.items()}
    if mode == "offline":
        its_stamp["max_seq_len"] = corpus.data.max_seq_len
    # Predictions are kept while only these keys change.
    facts = {key: value for key, value in its_stamp.items() if key not in NOT_IN_PREDICTIONS}
    folder = Path(args.output_dir) / "predictions" / re.sub(r"[^a-z0-9_]+", "-", name)
    store = PredictionStore(folder, facts, corpus.fingerprints)
    thresholds = (stamp["speaking_threshold"], stamp["dst_update_threshold"])
    return Run(name, store, frames, thresholds, args.batch_size, corpus.data.max_seq_len, **settings), its_stamp


def stream_contexts(args: EvaluateArguments, context: Context) -> list[Context]:
    """The context of each stream run. Where strategies are compared, ``none`` has no limit, as the upper bound."""
    return [
        replace(context, strategy=one, max_tokens=None if one == "none" and args.contexts else context.max_tokens)
        for one in args.contexts or [context.strategy]
    ]


def check_controls(args: EvaluateArguments, tracking: Tracking) -> None:
    """Check the settings of the controls before anything is computed.

    Raises:
        UsageError: a control cannot be run with the other settings, or ``blind`` is no model without sight.
    """
    if args.windows and tracking.source == "text":
        raise UsageError(
            "evaluate.windows judges frames without writing texts, and tracking.source=text reads states from texts: "
            "set tracking.source=head, or leave evaluate.windows out."
        )
    if args.blind is None:
        return
    if not Path(args.blind).is_dir():
        raise UsageError(f"evaluate.blind={args.blind}: no such folder; give a model trained with data.frames=blank.")
    frames = data_of(Path(args.blind), {}).frames
    if frames != "blank":
        raise UsageError(
            f"evaluate.blind={args.blind} was trained with data.frames={frames}; give a model trained with "
            "data.frames=blank."
        )
