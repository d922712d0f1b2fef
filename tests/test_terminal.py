"""What a terminal would obey is shown as a code, in sentences, tables, log lines, warnings and what jobs print."""

from __future__ import annotations

import logging
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.jobs.command import sentence
from prospect_hf.tables import table
from prospect_hf.terminal import BIDI, VisibleFormatter, complain, format_warning, say, visible, visible_lines

EVIL = "a\x1b[2Jb\x9bc\x7fd\re\u202ef\u2066g\u200fh\u2028i\x00j\ud800"
SHOWN = r"a\x1b[2Jb\x9bc\x7fd\x0de\u202ef\u2066g\u200fh\u2028i\x00j\ud800"


def harmless(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Zl", "Zp", "Cs") and c not in BIDI for c in text)


@given(st.text(st.characters(), max_size=40))
def test_no_text_holds_what_a_terminal_obeys(text: str) -> None:
    assert harmless(visible(text)) and harmless(visible_lines(text).replace("\n", ""))
    if harmless(text):
        assert visible_lines(text) == text


def test_control_characters_are_codes() -> None:
    assert visible(EVIL) == visible_lines(EVIL) == SHOWN
    assert visible("two\nlines\r\n and\ttabs ") == "two lines and tabs"
    assert visible_lines("two\nlines\r\n") == "two\nlines\\x0d\n"
    for sound in ("Öl → 🔧 👩‍🍳", "שלום", "مرحبا", "汉字", r"C:\new"):
        assert visible(sound) == sound


def test_whatever_shows_text_shows_codes(capsys: pytest.CaptureFixture[str]) -> None:
    found = sentence(FileNotFoundError(2, "No such file", f"clip {EVIL}.mp4"))
    assert found is not None and harmless(found[0])
    found = sentence(ValueError("no rule knows it"))
    assert found is None
    assert harmless(table([["name", "F1"], [EVIL, "0.5"]]).replace("\n", ""))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s: read", (EVIL,), None)
    assert VisibleFormatter("%(message)s").format(record) == f"{SHOWN}: read"
    assert format_warning(UserWarning(EVIL), UserWarning, "file.py", 3) == f"warning: {SHOWN}\n"
    say(EVIL, 3)
    complain(f"{EVIL}\nb")
    told = capsys.readouterr()
    assert told.out == f"{SHOWN} 3\n" and told.err == f"{SHOWN} b\n"


def test_a_file_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    name = tmp_path / "a\x1b]0;owned\x07\u202eb\nc.json"
    told = subprocess.run(
        [sys.executable, str(root / "scripts" / "evaluate.py"), "compare", str(name), str(name)],
        env={"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    assert told.returncode == 2 and told.stdout == ""
    assert harmless(told.stderr.removesuffix("\n")) and r"a\x1b]0;owned\x07\u202eb c.json" in told.stderr
