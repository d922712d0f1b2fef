"""``scripts/evaluate.py``: a model and a corpus in; predictions, figures with intervals, and one report out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import transformers

from context_dst_smolvlm import Context, StreamError
from modeling_dst_smolvlm import Decoding
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.features import FrameFeatures, encode_sessions
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.arguments import GROUPS, EvaluateArguments
from prospect_hf.evaluation.compare import compare_command, report_command
from prospect_hf.evaluation.encoders import SentenceEncoder
from prospect_hf.evaluation.entries import write_entries
from prospect_hf.evaluation.evaluated import Evaluated
from prospect_hf.evaluation.inputs import (
    Corpus,
    baseline_predictions,
    baseline_stamp,
    common_stamp,
    data_of,
    embed,
    load_corpus,
    source_frequencies,
)
from prospect_hf.evaluation.judging import add_judgements
from prospect_hf.evaluation.page import write_report
from prospect_hf.evaluation.predict import Run, predict_missing, workers
from prospect_hf.evaluation.predictions import Prediction, PredictionStore
from prospect_hf.evaluation.results import run_result, write_results
from prospect_hf.evaluation.tables import overview_table
from prospect_hf.evaluation.tally import tally
from prospect_hf.llm import LLMArguments, LLMClient
from prospect_hf.settings import compose, parse
from tracking_dst_smolvlm import Tracking

logger = logging.getLogger(__name__)


def main(argv: Sequence[str], usage: str | None = None) -> int:
    """Evaluate, compare or report, as the command line says, and return the exit code."""
    if {"-h", "--help"} & set(argv):
        print(usage or main.__doc__)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for noisy in ("httpx", "datasets", "hydra", "openai", "sentence_transformers", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if argv and argv[0] == "compare":
            return compare_command(argv[1:])
        if argv and argv[0] == "report":
            return report_command(argv[1:])
        run(argv)
    except (UsageError, DataError, StreamError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the sessions that are missing", file=sys.stderr)
        return 1
    return 0


def run(overrides: Sequence[str]) -> dict[str, Any]:
    """Evaluate one model; returns what ``results.json`` holds."""
    groups = compose("evaluate", GROUPS, overrides)
    args = parse(EvaluateArguments, groups["evaluate"], "evaluate")
    context = parse(Context, groups["context"], "context")
    tracking = parse(Tracking, groups["tracking"], "tracking")
    decoding = parse(Decoding, groups["decoding"], "decoding")
    llm = parse(LLMArguments, groups["llm"], "llm")
    data = data_of(Path(args.model), groups["data"])
    client = LLMClient(llm) if args.judge else None

    model, processor = load_trained(Path(args.model))
    corpus = load_corpus(args, data, processor)
    encoder = SentenceEncoder(args.encoder, Path(data.cache_dir)) if args.encoder else None
    frames = encode_sessions(model, corpus.reader, corpus.sessions, Path(data.cache_dir) / "features")

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
    results = []
    for name, (its_stamp, predictions) in made.items():
        thresholds = its_stamp["speaking_threshold"], its_stamp["dst_update_threshold"]
        counts = [
            tally(session, one, fps, thresholds, tracking.policy, embeddings, frequencies.get(session.source))
            for session, one in zip(sessions, predictions, strict=True)
        ]
        alpha = None
        if client is not None and its_stamp["mode"] == "stream":
            alpha = add_judgements(client, args.judge_votes, sessions, predictions, counts, fps)
            its_stamp |= {"judge": {"model": llm.model, "votes": args.judge_votes, "temperature": llm.temperature}}
        evaluated = Evaluated(sessions, predictions, counts, fps, embeddings)
        results.append(run_result(name, its_stamp, evaluated, corpus.fingerprints, args.draws, alpha))
    if client is not None:
        logger.info("The judge: %s", ", ".join(f"{name} {value}" for name, value in client.spent.items()))
    written = write_results(output / "results.json", results)
    write_report(output / "report.html", written)
    print(overview_table(written["runs"]))
    entries = write_entries(output, written, args.dataset_id, Path(args.model) if args.card else None)
    print(f"\n{', '.join(map(str, [output / 'results.json', output / 'report.html', *entries]))}")
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
            # Without a strategy a limit would only end the stream.
            size = None if strategy == "none" else context.max_tokens
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
        facts = {
            key: value
            for key, value in its_stamp.items()
            if key not in ("model", "data", "data_fingerprint", "split", "sources", "encoder", "draws")
        }
        folder = Path(args.output_dir) / "predictions" / re.sub(r"[^a-z_]+", "-", name)
        store = PredictionStore(folder, facts, corpus.fingerprints)
        job = Run(name, store, frames, thresholds, args.batch_size, corpus.data.max_seq_len)
        if chosen is not None:
            job = replace(job, context=chosen, tracking=tracking, decoding=decoding)
        runs.append((job, its_stamp))
    return runs
