"""The keys of a settings group, read from the source code of its dataclass: name, type, default and description.

Nothing is imported: importing the training arguments takes seconds (torch, transformers), while help and a misspelt
key should answer at once.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, Union

PLAIN_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class Setting:
    """One key of a settings group.

    Args:
        name: of the key.
        type: its annotation, as in the source.
        hint: the annotation as a type; ``Any`` in place of what only the library behind it knows.
        default: the default, as in the source; None where the key has none.
        help: what it means.
        inherited: it belongs to a base class of another package.
    """

    name: str
    type: str
    hint: Any
    default: str | None
    help: str
    inherited: bool = False


@functools.cache
def read_settings(path: str) -> dict[str, Setting]:
    """The settings of a dataclass by name, its own before those of its base classes.

    Args:
        path: ``module:Class``.
    """
    module, name = path.split(":")
    tree = ast.parse(source_file(module).read_text(encoding="utf-8"))
    (node,) = [entry for entry in tree.body if isinstance(entry, ast.ClassDef) and entry.name == name]
    described = described_arguments(ast.get_docstring(node) or "")
    own = {}
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and not _is_class_variable(entry):
            key = entry.target.id
            default, description = _default_and_help(entry.value)
            default = _constant(tree, default)
            annotation = ast.unparse(entry.annotation)
            own[key] = Setting(
                key, annotation, type_hint(entry.annotation), default, description or described.get(key, "")
            )
    for base in node.bases:
        origin = _origin(tree, base, module)
        if origin is not None:
            foreign = origin.partition(".")[0].partition(":")[0] != module.partition(".")[0]
            inherited = read_settings(origin)
            for key, setting in inherited.items():
                if key not in own:
                    own[key] = Setting(**{**vars(setting), "inherited": foreign or setting.inherited})
    return own


def source_file(module: str) -> Path:
    """The source file of a module; only its top package is looked up, and nothing is imported."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{top} is not installed.")
    if not rest:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_class_variable(entry: ast.AnnAssign) -> bool:
    return ast.unparse(entry.annotation).startswith(("ClassVar", "typing.ClassVar"))


def _origin(tree: ast.Module, base: ast.expr, module: str) -> str | None:
    """``module:Class`` of a base class: one of the same file, or one that the file imports."""
    if not isinstance(base, ast.Name):
        return None
    for entry in ast.walk(tree):
        if isinstance(entry, ast.ClassDef) and entry.name == base.id:
            return f"{module}:{base.id}"
        if isinstance(entry, ast.ImportFrom) and entry.module and any(a.name == base.id for a in entry.names):
            # transformers exports its classes at the top; the source is in the module of that name.
            where = "transformers.training_args" if base.id == "TrainingArguments" else entry.module
            return f"{where}:{base.id}"
    return None


def _default_and_help(value: ast.expr | None) -> tuple[str | None, str]:
    """Of ``= value`` or ``= field(default=value, metadata={"help": ...})``."""
    if value is None:
        return None, ""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field"):
        return ast.unparse(value), ""
    default, description = None, ""
    for keyword in value.keywords:
        if keyword.arg == "default":
            default = ast.unparse(keyword.value)
        elif keyword.arg == "default_factory":
            factory = keyword.value
            empty = {"list": "[]", "dict": "{}"}
            default = ast.unparse(factory.body) if isinstance(factory, ast.Lambda) else empty[ast.unparse(factory)]
        elif keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            for key, text in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "help" and isinstance(text, ast.Constant):
                    description = " ".join(str(text.value).split())
    return default, description


def _constant(tree: ast.Module, default: str | None) -> str | None:
    """The default with a constant in place of its name: ``list(SOURCES)`` is the list of the six sources."""
    named = re.fullmatch(r"(?:list\(([A-Z_]+)\)|([A-Z_]+))", default or "")
    if named is None:
        return default
    name = named[1] or named[2]
    for entry in tree.body:
        if isinstance(entry, ast.Assign):
            for target, given in _assigned(entry):
                if isinstance(target, ast.Name) and target.id == name:
                    value = ast.unparse(given)
                    return f"[{value.strip('()')}]" if named[1] else value
        if isinstance(entry, ast.ImportFrom) and entry.module and any(alias.name == name for alias in entry.names):
            source = source_file(entry.module).read_text(encoding="utf-8")
            return _constant(ast.parse(source), default)
    return default


def _assigned(entry: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What an assignment gives to what; ``A, B = 1, 2`` are two pairs."""
    for target in entry.targets:
        if isinstance(target, ast.Tuple) and isinstance(entry.value, ast.Tuple):
            yield from zip(target.elts, entry.value.elts, strict=True)
        else:
            yield target, entry.value


def described_arguments(docstring: str) -> dict[str, str]:
    """The entries of a docstring's ``Args:`` section; an entry may describe several names, ``first, second: ...``."""
    found = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if found is None:
        return {}
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(found[1]).strip()):
        names, colon, text = entry.partition(":")
        if colon:
            entries |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    return entries


def type_hint(annotation: ast.expr) -> Any:
    """The annotation as a type; ``Any`` for names that only an import could resolve."""
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):
            return type_hint(ast.parse(annotation.value, mode="eval").body)
        return NoneType if annotation.value is None else Any
    if isinstance(annotation, ast.Name):
        return PLAIN_TYPES.get(annotation.id, Any)
    if isinstance(annotation, ast.BinOp):
        return Union[type_hint(annotation.left), type_hint(annotation.right)]  # noqa: UP007 - built at run time
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        inner = annotation.slice
        parts = tuple(type_hint(part) for part in (inner.elts if isinstance(inner, ast.Tuple) else [inner]))
        if annotation.value.id == "Optional":
            return Union[parts[0], None]  # noqa: UP007
        if annotation.value.id in ("list", "dict", "tuple"):
            return {"list": list, "dict": dict, "tuple": tuple}[annotation.value.id][parts]  # type: ignore[index]
    return Any
