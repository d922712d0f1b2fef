"""Decisions from the LM head, and streams without state texts: trained, streamed, saved and evaluated alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import (
    NoiseReader,
    collate,
    largest_difference,
    make_session,
    model_inputs,
    new_model,
    picture,
    small_processor,
)
from peft import LoraConfig, inject_adapter_in_model
from stream_fixtures import PLAN, ForcedBatch, inputs_of

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipDataset, ClipInputs
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.evaluation.teacher_forced import teacher_forced
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole
from prospect_hf.training.loss_arguments import LossArguments
from prospect_hf.training.losses import head_losses
from streaming_dst_smolvlm import Context, Decoding, DSTStream, StreamError
from tracking_dst_smolvlm import Tracking

SESSIONS = [make_session(0, 14, 3), make_session(1, 22, 5), make_session(2, 1, 1), make_session(3, 9, 2, turn_rate=0.8)]
CHOICES = pytest.mark.parametrize(("source", "feedback"), [("lm", True), ("heads", False), ("lm", False)])


def clips(state_feedback: bool, sessions: list[SessionRows] = SESSIONS, max_seq_len: int = 2048) -> ClipDataset:
    processor = small_processor(1, state_feedback)
    return ClipDataset(clips_of(sessions, processor, max_seq_len), ClipInputs(processor, NoiseReader()))


def batch_of(state_feedback: bool = True) -> dict[str, torch.Tensor]:
    dataset = clips(state_feedback)
    return collate([dataset[index] for index in range(len(dataset))])


def saved(folder: Path, source: str = "heads", feedback: bool = True) -> Path:
    new_model(decision_source=source, state_feedback=feedback).save_pretrained(folder)
    small_processor(1, feedback).save_pretrained(folder)
    return folder


# -- what the LM head answers -------------------------------------------------------------------------------------


def test_decisions_are_the_lm_heads_logits_at_the_frames_last_token() -> None:
    model, processor, batch = new_model(decision_source="lm"), small_processor(), batch_of()
    nothing, speak, update = processor.decision_tokens
    opened = [processor.tokenizer.decode([token]) for token in (speak, update)]
    assert nothing == processor.image_id and "Assistant:".startswith(opened[0]) and "State:".startswith(opened[1])
    with torch.no_grad():
        output = model(**model_inputs(batch, "labels"))
    for row, session in enumerate(SESSIONS):
        logits = output.logits[row, batch["frame_positions"][row, : len(session)]]
        assert largest_difference(output.speaking_logits[row, : len(session)], logits[:, [nothing, speak]]) <= 1e-4
        assert largest_difference(output.dst_update_logits[row, : len(session)], logits[:, [nothing, update]]) <= 1e-4
    assert (output.speaking_logits[2, 1:] == 0).all()  # padding frames
    assert not any("decision_head" in name or "update_head" in name for name in model.state_dict())


@CHOICES
def test_a_streamed_clip_is_the_training_clip(source: str, feedback: bool) -> None:
    """Ids and decisions are those of the batch that the trainer reads."""
    model, processor = new_model(decision_source=source, state_feedback=feedback), small_processor(1, feedback)
    batch = ForcedBatch(model, processor, SESSIONS, decoding=Decoding(max_new_tokens=100))
    decided: list[list[tuple[float, float]]] = [[] for _ in SESSIONS]
    decide = batch.turns.decide

    def recorded(row: Any, p_speak: float, p_update: float, states: Any) -> None:
        decided[row.number].append((p_speak, p_update))
        decide(row, p_speak, p_update, states)

    batch.turns.decide = recorded  # type: ignore[method-assign]
    for _ in batch.run([inputs_of(session) for session in SESSIONS]):
        pass
    trained = batch_of(feedback)
    with torch.no_grad():
        expected = model(**model_inputs(trained, "labels"))
    for index, session in enumerate(SESSIONS):
        ids = [*batch.fed[index], *batch.rows[index].pending]
        assert ids == trained["input_ids"][index, : len(ids)].tolist()
        assert int(trained["attention_mask"][index].sum()) == len(ids)
        text = processor.tokenizer.decode(ids)
        assert text.count("State:") == (int((session.dst_update == 1).sum()) if feedback else 0)
        for place, logits in enumerate((expected.speaking_logits, expected.dst_update_logits)):
            wanted = logits[index, : len(session)].softmax(-1)[:, 1]
            assert largest_difference(wanted, torch.tensor([one[place] for one in decided[index]])) <= 1e-5
        assert list(batch.rows[index].table.states) == session.states_after[-1].tolist()  # tracked all the same


@CHOICES
def test_the_future_does_not_leak(source: str, feedback: bool) -> None:
    model, batch = new_model(decision_source=source, state_feedback=feedback), batch_of(feedback)
    place = int(batch["frame_positions"][1, 9])
    other = {name: value.clone() for name, value in batch.items()}
    later = other["input_ids"][:, place + 1 :]
    texts = (later != model.config.image_token_id) & (other["attention_mask"][:, place + 1 :] == 1)
    later[texts] = later[texts].flip(0)
    with torch.no_grad():
        one, two = (model(**model_inputs(given, "labels")) for given in (batch, other))
    for name in ("speaking_logits", "dst_update_logits"):
        assert largest_difference(one[name][1, :10], two[name][1, :10]) <= 1e-5
        assert largest_difference(one[name][1, 10:], two[name][1, 10:]) > 1e-3


# -- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [True, False])
def test_the_decisions_train_the_lm_head_or_the_adapter(tied: bool, lora: bool) -> None:
    model, batch = new_model(decision_source="lm"), batch_of()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    if lora:
        targets = r".*text_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
        inject_adapter_in_model(LoraConfig(r=2, target_modules=targets), model)
    for name in ("labels", "dst_state_labels"):
        batch[name] = torch.full_like(batch[name], IGNORE)
    output = model(**model_inputs(batch))
    head_losses(output, batch, LossArguments(decision_loss="balanced")).sum().backward()
    moved = {
        name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0
    }
    if lora:
        assert moved and all("lora_B" in name for name in moved), moved  # the B matrices begin at 0
        return
    assert ("lm_head.weight" in moved) != tied and "model.text_model.embed_tokens.weight" in moved
    gradient = model.lm_head.weight.grad
    assert gradient is not None
    if not tied:  # of the vocabulary, the three tokens that decide
        rows = gradient.abs().sum(1).nonzero().flatten().tolist()
        assert rows == sorted(small_processor().decision_tokens)


# -- checkpoints --------------------------------------------------------------------------------------------------


@CHOICES
def test_a_checkpoint_says_how_it_decides(tmp_path: Path, source: str, feedback: bool) -> None:
    model, processor = load_trained(saved(tmp_path, source, feedback))
    assert (model.config.decision_source, model.config.state_feedback) == (source, feedback)
    assert processor.state_feedback == feedback
    with torch.no_grad():
        ours, theirs = (
            one(**model_inputs(batch_of(feedback), "labels"))
            for one in (model, new_model(decision_source=source, state_feedback=feedback))
        )
    assert torch.equal(ours.speaking_logits, theirs.speaking_logits)


def test_training_goes_on_with_the_source_that_is_asked(tmp_path: Path) -> None:
    """Heads that a checkpoint lacks are drawn anew; thresholds of the other source are forgotten."""
    heads, lm = saved(tmp_path / "heads"), saved(tmp_path / "lm", "lm")
    for folder in (heads, lm):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "speaking_threshold": 0.3}))

    def built(folder: Path, source: str | None) -> DSTSmolVLMForConditionalGeneration:
        arguments = ModelArguments(name_or_path=str(folder), decision_source=source)
        return load_whole(arguments, build_processor(arguments, []))

    for folder, source, found, threshold in (
        (heads, None, "heads", 0.3),
        (heads, "lm", "lm", 0.5),
        (lm, None, "lm", 0.3),
        (lm, "heads", "heads", 0.5),
        (lm, "lm", "lm", 0.3),
    ):
        model = built(folder, source)
        assert (model.config.decision_source, model.config.speaking_threshold) == (found, threshold)
        assert hasattr(model, "speaking_decision_head") == (found == "heads")
        assert model.config.decision_tokens == (small_processor().decision_tokens if found == "lm" else None)
        assert torch.equal(model.dst_state_head.weight, new_model(decision_source=folder.name).dst_state_head.weight)
        model.save_pretrained(tmp_path / "again")
        small_processor().save_pretrained(tmp_path / "again")
        load_trained(tmp_path / "again")


def test_feedback_is_what_is_asked_or_what_the_checkpoint_has(tmp_path: Path) -> None:
    folder = saved(tmp_path, feedback=False)
    for asked, found in ((None, False), (True, True), (False, False)):
        arguments = ModelArguments(name_or_path=str(folder), state_feedback=asked)
        processor = build_processor(arguments, [])
        model = load_whole(arguments, processor)
        assert processor.state_feedback == model.config.state_feedback == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision_source": "both"}, "decision_source must be one of heads, lm, not 'both'"),
        ({"decision_source": "lm"}, "decision_source=lm needs decision_tokens: three different token ids"),
        ({"decision_source": "lm", "decision_tokens": [1, 2, 2]}, "three different token ids"),
        ({"decision_source": "lm", "decision_tokens": [1, 2, 10**6]}, "three different token ids below"),
        ({"decision_tokens": [1, 2, 3]}, r"decision_tokens=\[1, 2, 3\] belongs to decision_source=lm"),
        ({"state_feedback": False}, "its processor has state_feedback=True, its config.json False"),
        ({"state_feedback": "no"}, "state_feedback"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = saved(tmp_path)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(UsageError, match=message):
        load_trained(folder)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "lm")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "decision_tokens": [5, 7, 9]}))
    with pytest.raises(UsageError, match=r"reads decisions from the tokens \[5, 7, 9\], and its tokenizer opens"):
        load_trained(folder)


def test_settings_of_the_model_are_checked() -> None:
    with pytest.raises(UsageError, match=r"model\.decision_source must be one of heads, lm, not 'head'"):
        ModelArguments(decision_source="head")


# -- no state texts -----------------------------------------------------------------------------------------------


def test_clips_without_state_texts_are_counted_without_them() -> None:
    session = make_session(4, 40, 3, event_rate=0.7)
    plain, bare = (clips(feedback, [session], 200) for feedback in (True, False))
    assert len(bare) < len(plain)
    for index, clip in enumerate(bare.clips):
        item = bare[index]
        assert len(item["input_ids"]) == clip.tokens <= 200
        text = small_processor().tokenizer.decode(item["input_ids"])
        assert "State:" not in text
        # The table that a clip begins with stays: it is the only witness of what happened before.
        assert text.count("[") == 3
    labels = [torch.cat([one[index]["dst_state_labels"] for index in range(len(one))]) for one in (plain, bare)]
    assert torch.equal(*labels)


def test_streams_and_evaluators_know_that_there_are_no_state_texts() -> None:
    model, processor = new_model(state_feedback=False), small_processor(1, False)
    found = dict(teacher_forced(model, processor, NoiseReader(), SESSIONS, 2048))
    for index, session in enumerate(SESSIONS):
        forced = found[index].forced
        assert forced is not None and not forced.is_state.any()
        assert len(forced.frame) == int((session.speaking == 1).sum())
    stream = DSTStream(
        model, processor, PLAN, dst_update_threshold=0.0, speaking_threshold=1.1, context=Context("none")
    )
    for frame in range(12):
        event = stream.step(picture("v", frame))
        assert event.cache_length == stream.cache_length
    prompt = stream.batch.rows[0].task.prompt(processor, [0] * len(PLAN))
    assert stream.cache_length == len(prompt.input_ids) + 12  # nothing but the frames
    with pytest.raises(StreamError, match="this model was trained without them"):
        DSTStream(model, processor, PLAN, tracking=Tracking(source="text"))
    with pytest.raises(StreamError, match="The processor has state_feedback=True, the model was trained with False"):
        DSTStream(model, small_processor(), PLAN)
