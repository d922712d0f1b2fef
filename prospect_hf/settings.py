"""Settings: composes Hydra groups of YAML files, and parses them into dataclasses with checked keys and values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prospect_hf.errors import UsageError

CONFIGS = Path(__file__).resolve().parent / "configs"


def compose(name: str, groups: Mapping[str, type[Any]], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compose the settings of each group. ``group.key=value`` accepts any key; :func:`parse` checks keys later.

    Args:
        name: name of the root file, ``configs/<name>.yaml``.
        groups: group -> the dataclass of its settings.
        overrides: overrides as on a command line.

    Raises:
        UsageError: an override names no group, or Hydra rejects it.
    """
    paths = {f.name: f"{group}.{f.name}" for group, cls in groups.items() for f in fields(cls)}
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in groups:
            near = difflib.get_close_matches(key.rpartition(".")[2], [*groups, *paths], n=1)
            hint = f"; did you mean {paths.get(near[0], near[0])}?" if near else "."
            known = ", ".join(groups)
            raise UsageError(f"{key!r} is no setting: give GROUP=NAME or GROUP.KEY=VALUE, groups are {known}{hint}")
    # Hydra needs "++" before a key that is in no file; the dataclasses define which keys exist.
    merged = [f"++{o}" if "." in o.partition("=")[0] and o[0] not in "+~" else o for o in overrides]
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(name, merged)
            return cast("dict[str, dict[str, Any]]", OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:  # model=3 is a ValueError
        raise UsageError(" ".join(str(error).split())) from error


Arguments = TypeVar("Arguments")


def parse(cls: type[Arguments], values: Mapping[str, Any], group: str) -> Arguments:
    """Create the dataclass of one group from its composed settings.

    Raises:
        UsageError: a key is unknown (the message suggests the nearest one), or a value has a wrong type or range.
    """
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {group}.{near[0]}?" if near else f"; known keys are {', '.join(sorted(known))}."
            raise UsageError(f"{group}.{key} is no setting{hint}")
        if not _fits(values[key], hints[key]):
            kind = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            raise UsageError(f"{group}.{key} must be {kind}, not {values[key]!r}.")
    try:
        return cls(**values)
    except UsageError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise UsageError(f"The {group} settings cannot be used: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value has a field's type; for types that YAML lacks, True: the dataclass must check them."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(hint)[1]) for item in value.values())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, dict, NoneType) else True
