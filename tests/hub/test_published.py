"""What may be published of settings: no secret, no absolute path, whatever the key, the depth and the form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.hub.published import is_secret, public, public_path

FOLDER = Path("/home/ann/project/outputs/model")


@pytest.mark.parametrize(
    "name",
    [
        *("hub_token", "token", "HF_TOKEN", "apiKey", "api_key", "openai-api-key", "aws_access_key_id", "password"),
        *("passwd", "client_secret", "Authorization", "credentials", "private_key", "tokens", "hubToken", "cookie"),
    ],
)
def test_keys_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)
    assert public({"a": {"b": [{name: "s3cr3t", "kept": 1}]}}, FOLDER) == {"a": {"b": [{"kept": 1}]}}
    assert public({name: {"user": "ann", "value": ["s3cr3t"]}}, FOLDER) == {}


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokens_per_frame", "keep_tokens", "keyframes", "monkey", "author", "metric_for_best_model"]
)
def test_other_keys_stay(name: str) -> None:
    assert not is_secret(name)
    assert public({name: "full"}, FOLDER) == {name: "full"}


def test_numbers_under_any_key_stay() -> None:
    value = {"max_new_tokens": 3, "token_accuracy": 0.5, "hub_token": None, "use_auth": True}
    assert public(value, FOLDER) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:s3cr3t@host/data", "https://host/data"),
        ("https://host/data?api_key=s3cr3t&page=2", "https://host/data?api_key=***&page=2"),
        ("model,token=s3cr3t", "model,token=***"),
        ('{"password": "s3cr3t"}', '{"password": "***"}'),
        ("Authorization: Bearer s3cr3t", "Authorization: *** ***"),
        ("at hf_s3cr3tAbc in it", "at *** in it"),
        ("/home/ann/hf_s3cr3tAbc/run", "../../../***/run"),
        ("/srv/ann/token=s3cr3t", ".../token=***"),
        ("sk-proj-s3cr3ts3cr3ts3cr3t", "***"),
        ("max_tokens=5, fast=true", "max_tokens=5, fast=true"),
    ],
)
def test_secrets_in_texts(text: str, shown: str) -> None:
    assert public(text, FOLDER) == public([text], FOLDER)[0] == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ann/project/outputs/model", "."),
        ("/home/ann/project/outputs/corpus", "../corpus"),
        ("/home/ann/project/outputs/model/checkpoint-2", "checkpoint-2"),
        ("/srv/secret/proassist", ".../proassist"),
        ("~/corpora/proassist", ".../proassist"),
        ("C:\\Users\\ann\\proassist", ".../proassist"),
        ("read from /srv/ann/a.json, 5 rows", "read from .../a.json, 5 rows"),
        ("file:///srv/ann/a.json", ".../a.json"),
        ("dir=/srv/ann/x", "dir=.../x"),
        ("outputs/model", "outputs/model"),
        ("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"),
        ("https://host/a/b/c", "https://host/a/b/c"),
        ("1/2 of it, and/or more", "1/2 of it, and/or more"),
        (Path("/srv/ann/x"), ".../x"),
    ],
)
def test_paths(path: str | Path, shown: str) -> None:
    assert public({"x": (path,)}, FOLDER) == {"x": [shown]}


NAMES = st.text("abcxyz 0-_.ü", min_size=1, max_size=8).filter(lambda name: name.strip(" .") == name)


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(NAMES, min_size=1, max_size=5))
def test_no_path_of_the_machine_is_left(parts: list[str], others: list[str]) -> None:
    path, folder = "/home/" + "/".join(parts), Path("/home/" + "/".join(others))
    shown = public({"a": [path]}, folder)["a"][0]
    assert not shown.startswith("/") and "/home/" not in shown
    assert (folder / shown).resolve() == Path(path).resolve()  # it is still found from the folder


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plain_values_stay_json(value: object) -> None:
    json.dumps(public(value, FOLDER))


def test_a_relative_path_is_one_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert public_path("corpus", tmp_path / "outputs" / "model") == "../../corpus"
