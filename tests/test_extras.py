"""What a message says about installing an extra can be done: the package is on no index."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from prospect_hf.extras import WHEEL, missing


def test_the_sentence() -> None:
    assert str(missing("The demo", "gradio", "demo")) == (
        'The demo needs gradio, which is not installed: `pip install -e ".[demo]"` in a checkout, or '
        f'`pip install "{WHEEL}[demo]"` with the wheel.'
    )


def test_every_extra_that_is_named_exists_and_none_is_asked_from_an_index(repository: Path) -> None:
    declared = (repository / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", declared.split("[project.optional-dependencies]")[1], re.MULTILINE))
    named = set()
    texts = [path for path in (repository / "prospect_hf").rglob("*") if path.suffix in (".py", ".txt", ".md", ".html")]
    for path in [*texts, repository / "README.md", repository / "model_card.md"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"prospect-hf\[|pip install \"?prospect-hf", text), path
        assert path.name != "requirements.txt" or "prospect-hf" not in text, path
        named |= set(re.findall(r"\bmissing\([^)]*\"([\w-]+)\"\)", text))
    assert named and named <= extras


def test_the_name_of_the_wheel_is_what_a_build_gives(repository: Path, tmp_path: Path) -> None:
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [WHEEL]
