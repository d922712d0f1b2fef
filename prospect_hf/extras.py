"""How to install an extra: the package is on no index, so messages say what works from a checkout and from a wheel."""

from __future__ import annotations

from prospect_hf import __version__
from prospect_hf.errors import UsageError

WHEEL = f"prospect_hf-{__version__}-py3-none-any.whl"


def how_to_install(extra: str) -> str:
    """The commands that install ``extra``, as part of a sentence."""
    return f'`pip install -e ".[{extra}]"` in a checkout, or `pip install "{WHEEL}[{extra}]"` with the wheel'


def missing(purpose: str, package: str, extra: str) -> UsageError:
    """The error to raise where ``purpose`` ("Writing a video") needs ``package`` of ``extra``."""
    return UsageError(f"{purpose} needs {package}, which is not installed: {how_to_install(extra)}.")
