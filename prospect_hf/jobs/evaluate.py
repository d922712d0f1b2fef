"""``scripts/evaluate.py``: a model and a corpus in; predictions, figures with intervals, and one report out."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from context_dst_smolvlm import Context
from decoding_dst_smolvlm import Decoding
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.features import FrameFeatures, encode_sessions
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.baselines import baseline_predictions
from prospect_hf.evaluation.corpus import Corpus, data_of, load_corpus
from prospect_hf.evaluation.judge.judge import prompt_hash
from prospect_hf.evaluation.judge.judged_runs import Judged, judge_run
from prospect_hf.evaluation.predictions import Prediction, PredictionStore
from prospect_hf.evaluation.report.overview import overview_table
from prospect_hf.evaluation.report.page import write_report
from prospect_hf.evaluation.report.results import run_result, write_results
from prospect_hf.evaluation.runs import Run, predict_missing, workers
from prospect_hf.evaluation.score import embed, score_session, source_frequencies
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.evaluation.stamp import baseline_stamp, common_stamp
from prospect_hf.hub.evaluation_entries import write_entries
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient
from prospect_hf.metrics.encoders import SentenceEncoder
from tracking_dst_smolvlm import Tracking

logger = logging.getLogger(__name__)

# Keys of a stamp that no prediction depends on.
NO_MATTER = ("model", "data", "data_fingerprint", "split", "sources", "sessions", "limit", "encoder", "draws")


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
        evaluate: what is evaluated and how.
        data: settings of the data that are given; the others are those that the model was trained with.
        context, tracking, decoding: of the streams.
        llm: which language model judges, with ``evaluate.judge``.
    """
    args = evaluate
    data_args = data_of(Path(args.model), data)
    client = LLMClient(llm) if args.judge else None
    encoder = SentenceEncoder(args.encoder, Path(data_args.cache_dir)) if args.encoder else None
    if encoder is not None:
        encoder(["ready"])  # what is wrong with it is said now, and not after hours of streams

    model, processor = load_trained(Path(args.model))
    corpus = load_corpus(args, data_args, processor)
    frames = encode_sessions(model, corpus.reader, corpus.sessions, Path(data_args.cache_dir) / "features")

    output = Path(args.output_dir)
    stamp = common_stamp(args, corpus, model, encoder)
    runs = planned_runs(args, stamp, corpus, frames, context, tracking, decoding)
    made: dict[str, tuple[dict[str, Any], list[Prediction]]] = {}  # run -> stamp, predictions
    with workers(Path(args.model), args.processes) as pool:
        for job, its_stamp in runs:
            predict_missing(job, corpus.sessions, model, processor, pool)
            made[job.name] = its_stamp, [job.store.load(session) for session in corpus.sessions]
    if args.baselines:
        made |= {name: (baseline_stamp(stamp, name), of) for name, of in baseline_predictions(corpus).items()}

    sessions, fps = corpus.sessions, model.config.fps
    embeddings = None if encoder is None else embed(encoder, sessions, [of for _, of in made.values()])
    frequencies = {} if encoder is None else source_frequencies(sessions)
    scored: dict[str, ScoredRun] = {}
    for name, (its_stamp, predictions) in made.items():
        thresholds = its_stamp["speaking_threshold"], its_stamp["dst_update_threshold"]
        of_sessions = [
            score_session(session, one, fps, thresholds, tracking.policy, embeddings, frequencies.get(session.source))
            for session, one in zip(sessions, predictions, strict=True)
        ]
        scored[name] = ScoredRun(of_sessions, fps)
    judged: dict[str, Judged] = {}
    results = {
        name: run_result(name, made[name][0], of, corpus.fingerprints, args.draws) for name, of in scored.items()
    }
    # Written before a judge is asked: it may fail, and the rest stands without it.
    written = write(output, results)
    if client is not None:
        asked = {"model": llm.model, "address": client.address, "votes": args.judge_votes, "prompt": prompt_hash()}
        for name, of in scored.items():
            if made[name][0]["mode"] == "stream":
                judged[name] = judge_run(client, args.judge_votes, of)
                of = of.with_counts(judged[name].counts)
                its_stamp = made[name][0] | {"judge": asked | {"temperature": llm.temperature}}
                results[name] = run_result(name, its_stamp, of, corpus.fingerprints, args.draws, judged[name])
        written = write(output, results)
        logger.info("The judge: %s", ", ".join(f"{name} {value}" for name, value in client.spent.items()))
    print(overview_table(written["runs"]))
    entries = write_entries(output, written, args.dataset_id, Path(args.model) if args.card else None)
    print(f"\n{', '.join(map(str, [output / 'results.json', output / 'report.html', *entries]))}")


def write(output: Path, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``results.json`` and the report; returns what the first holds."""
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
    """The runs that were asked for, each with its stamp."""
    asked: list[tuple[str, Context | None]] = []
    if "offline" in args.modes:
        asked.append(("offline", None))
    if "stream" in args.modes:
        for strategy in args.contexts or [context.strategy]:
            # When several strategies are compared, "none" runs without a limit, as the upper bound.
            size = None if strategy == "none" and args.contexts else context.max_tokens
            asked.append((f"stream, {strategy}", replace(context, strategy=strategy, max_tokens=size)))
    runs = []
    thresholds = (stamp["speaking_threshold"], stamp["dst_update_threshold"])
    for name, chosen in asked:
        its_stamp = dict(stamp) | {"mode": "offline", "max_seq_len": corpus.data.max_seq_len}
        if chosen is not None:
            its_stamp = dict(stamp) | {
                "mode": "stream",
                "context": asdict(chosen),
                "tracking": asdict(tracking),
                "decoding": asdict(decoding),
            }
        # What a prediction does not depend on must not make it anew.
        facts = {key: value for key, value in its_stamp.items() if key not in NO_MATTER}
        folder = Path(args.output_dir) / "predictions" / re.sub(r"[^a-z_]+", "-", name)
        store = PredictionStore(folder, facts, corpus.fingerprints)
        job = Run(name, store, frames, thresholds, args.batch_size, corpus.data.max_seq_len)
        if chosen is not None:
            job = replace(job, context=chosen, tracking=tracking, decoding=decoding)
        runs.append((job, its_stamp))
    return runs
