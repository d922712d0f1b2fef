"""Wrong input of a benchmark ends as that of a command does: in one sentence and with code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from prospect_hf.errors import DataError, UsageError


def exit_code(main: Callable[[], int]) -> int:
    """What ``main`` returns, or 2 after its error as one sentence on standard error."""
    try:
        return main()
    except (DataError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
