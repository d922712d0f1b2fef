"""Settings: YAML files put together by Hydra, and ``group.key=value`` on the command line, checked key by key.

Groups and files (``model=tiny``) are Hydra's. Values are read by the type of their key: the text of a text setting is
taken as it stands, so goals and file names may hold spaces, quotes, commas and ``=``; every other value is YAML.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from prospect_hf.errors import UsageError
from prospect_hf.settings_schema import Setting, read_settings

CONFIGS = Path(__file__).resolve().parent / "configs"
# YAML 1.1 reads these as true and false; here only true and false are, so that eval_strategy=no is the word.
YAML_WORDS = ("yes", "no", "on", "off")
Groups = Mapping[str, str]  # group -> "module:Class" of its dataclass


def compose(name: str, groups: Groups, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of each group: the defaults of ``configs/<name>.yaml``, then ``overrides``.

    Keys and the types of values are checked here, before a model or a library is loaded; what a value may be is checked
    when the group's dataclass is made (``parse``).

    Args:
        name: the root file, ``configs/<name>.yaml``.
        groups: the dataclass of each group.
        overrides: as on a command line: ``group=file`` and ``group.key=value``.

    Raises:
        UsageError: an override that names no group, file or key, or a value of another type than its key's.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schemas = {group: read_settings(path) for group, path in groups.items()}
    choices, assignments = [], []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.lstrip("+")
        group, dot, path = key.partition(".")
        if group not in groups or not equals:
            raise UsageError(_no_setting(override, schemas))
        if dot:
            assignments.append((group, path, _value(group, path, text, schemas[group])))
        else:
            choices.append(f"{group}={_choice(group, text)}")
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(name, choices)
        composed = cast("dict[str, dict[str, Any]]", OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    # A group without a file and without a value stands for its dataclass's defaults.
    composed = {group: composed.get(group) or {} for group in groups}
    for group, path, value in assignments:
        _assign(composed[group], path.split("."), value)
    for group, values in composed.items():
        check_keys(group, values, schemas[group])
    return composed


def _assign(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set ``values[path[0]][path[1]]...``; what is no mapping on the way becomes one."""
    *outer, last = path
    for name in outer:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    values[last] = value


def choices_of(group: str) -> list[str]:
    """The files of a group, ``configs/<group>/*.yaml``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _choice(group: str, text: str) -> str:
    known = choices_of(group)
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
        hint = f"; did you mean {group}={near[0]}?" if near else "."
        if not known:
            raise UsageError(f"{group}={text}: the group {group} has no files; set its keys, {group}.KEY=VALUE.")
        raise UsageError(f"{group}={text} is no choice: known are {', '.join(known)}{hint}")
    return text


def _value(group: str, path: str, text: str, schema: Mapping[str, Setting]) -> Any:
    """The value that ``text`` stands for; an unknown key is refused with the nearest known one."""
    name, _, inner = path.partition(".")
    if name not in schema:
        raise UsageError(_unknown_key(group, name, schema))
    hint = schema[name].hint
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if not inner and kinds <= {str, NoneType} and not quoted:
        return None if text in ("null", "~") and NoneType in kinds else text
    if text.lower() in YAML_WORDS:
        return text
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return _mapping(text) if text.startswith("{") else _yaml(text)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{group}.{path}={text} is not a value that YAML can read ({reason}); quote texts.") from error


def _yaml(text: str) -> Any:
    """A value as OmegaConf's YAML reads it: 1e-5 is a number, which it is not in plain YAML 1.1."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[index, call-overload]


def _mapping(text: str) -> Any:
    """A mapping in Hydra's grammar: ``{train:1,val:1}`` needs no space behind a colon, as it does in YAML."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"value={text}").value()


def _no_setting(override: str, schemas: Mapping[str, Mapping[str, Setting]]) -> str:
    key = override.lstrip("+~").partition("=")[0]
    paths = {name: f"{group}.{name}" for group, schema in schemas.items() for name in schema}
    groups = ", ".join(schemas)
    if key.partition(".")[0] in schemas:
        return f"{override!r} gives no value: write {key}=VALUE."
    near = difflib.get_close_matches(key.rpartition(".")[2], [*schemas, *paths], n=1)
    hint = f"; did you mean {paths.get(near[0], near[0])}?" if near else "."
    return f"{key!r} is no setting: give GROUP=NAME or GROUP.KEY=VALUE, groups are {groups}{hint}"


def _unknown_key(group: str, key: str, schema: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, schema, n=1)
    hint = f"; did you mean {group}.{near[0]}?" if near else f"; known keys are {', '.join(sorted(schema))}."
    return f"{group}.{key} is no setting{hint}"


def check_keys(group: str, values: Mapping[str, Any], schema: Mapping[str, Setting]) -> None:
    """Whether a group's keys are known and its values of their types.

    Raises:
        UsageError: an unknown key, with the nearest known one, or a value of another type.
    """
    for key, value in values.items():
        if key not in schema:
            raise UsageError(_unknown_key(group, str(key), schema))
        if not _fits(value, schema[key].hint):
            raise UsageError(f"{group}.{key} must be {schema[key].type}, not {value!r}.")


Arguments = TypeVar("Arguments")


def parse(cls: type[Arguments], values: Mapping[str, Any], group: str) -> Arguments:
    """A dataclass from one group of the composed configuration.

    Raises:
        UsageError: an unknown key (with the nearest known one), or a value of another type or out of range.
    """
    hints = get_type_hints(cls)
    known = {f.name: None for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(_unknown_key(group, str(key), known))
        if not _fits(values[key], hints[key]):
            kind = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            raise UsageError(f"{group}.{key} must be {kind}, not {values[key]!r}.")
    try:
        return cls(**values)
    except UsageError:
        raise
    except (TypeError, ValueError, ImportError, OSError) as error:  # a setting may name a file that is not there
        raise UsageError(f"The {group} settings cannot be used: {' '.join(str(error).split())}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value as YAML gives it is of a field's type; types that YAML does not know are left to the field."""
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
