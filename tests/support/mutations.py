"""Damages inputs at random, always the same way for the same seed: JSON, bytes, safetensors files and whole folders."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

ODD_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 1000, 10**7, 2**31, 2**63, -(2**63), 10**30, 10**400,
    0.0, -0.0, 0.5, -0.5, 1.5, 1e-300, 1e19, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip
ODD_TEXTS: tuple[str, ...] = (
    "", " ", "x", "0", "-1", "nan", "null", "true", "full", "none", "\ud800", "a\u2028b", "\x00", "\x1b[31m", "../x",
    "/", ".", "<image>", "S1", "1. x", "x" * 3000, "\U0001f6e0\ufe0f", "\u202eabc", "5 " * 200, "\n\n", "é",
)  # fmt: skip
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)


def odd_value(rng: random.Random) -> Any:
    """A value that a reader may not have thought of."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(ODD_NUMBERS)
    if kind < 7:
        return rng.choice(ODD_TEXTS)
    if kind == 9:
        nested: Any = rng.choice([1, "x", None])
        for _ in range(rng.choice([2, 5, 300])):
            nested = rng.choice([[nested], {"a": nested}])
        return nested
    return copy.deepcopy(
        rng.choice([None, None, [], {}, [None], [[]], [1, 2], {"a": 1}, ["x"], [0.5, -1], [[0, 1, 2]]])
    )


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    """Every (container, key) in a JSON value."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)


def _change(old: Any, rng: random.Random) -> Any:
    if rng.random() < 0.35:
        if isinstance(old, bool):
            return rng.choice([not old, int(old), str(old)])
        if isinstance(old, (int, float)):
            return rng.choice(
                [-old, old + 1, old - 1, old * 1000, old * 0.5 if abs(old) < 2**63 else 0, str(old), [old]]
            )
        if isinstance(old, str):
            return rng.choice([old + old, old[:-1], old + rng.choice(ODD_TEXTS), old.upper(), [old], list(old[:9])])
        if isinstance(old, list):
            changed = [*old, *copy.deepcopy(rng.sample(old, min(len(old), 1)))]
            rng.shuffle(changed)
            return rng.choice([changed, old[:-1], old[1:], old + old, dict(enumerate(map(str, old)))])
        if isinstance(old, dict):
            return rng.choice([list(old), list(old.values()), {str(value): key for key, value in old.items()}, [old]])
    return odd_value(rng)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one to three places removed, added or changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places: list[tuple[Any, Any]] = []
        _places(value, places)
        if not places or rng.random() < 0.02:
            value = odd_value(rng)
            continue
        # Half of the time a place near the root: long lists would take nearly all of the changes.
        depth = rng.random() < 0.5
        container, key = rng.choice([place for place in places if len(place[0]) < 60] or places) if depth else (
            rng.choice(places)
        )  # fmt: skip
        how = rng.random()
        if how < 0.2:
            del container[key]
        elif how < 0.25 and isinstance(container, list):
            container.insert(key, odd_value(rng))
        elif how < 0.25:
            container[rng.choice(["x", "", "\ud800", "kind", "id", "type"])] = odd_value(rng)
        else:
            container[key] = _change(container[key], rng)
    return value


def mutate_bytes(data: bytes, rng: random.Random, most: int = 3) -> bytes:
    """Bytes that were cut, flipped, removed, repeated or replaced in one to ``most`` places."""
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.6 else rng.randrange(min(len(data), 200) + 1)
        length = rng.choice([1, 1, 2, 4, 16, 200])
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + data[at : at + length] * 2 + data[at + length :]
        elif kind == 3:
            data = data[:at] + rng.randbytes(length) + data[at + length :]
        elif kind == 4:
            data = rng.choice([b"", b"\xef\xbb\xbf" + data, b"\xff\xfe" + data, data + b"\x00", data * 2, b"\n"])
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    return data


def json_bytes(value: Any, rng: random.Random) -> bytes:
    """A JSON value as a file; now and then with a number of 5,000 digits or in another encoding."""
    text = json.dumps(value)
    how = rng.random()
    if how < 0.03:
        text = text.replace(rng.choice(["1", "0", "null"]), "9" * 5000, 1)
    elif how < 0.05:
        return json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    elif how < 0.07:
        text = "[" * 20_000 + text
    return text.encode()


def damaged_json(value: Any, rng: random.Random, in_bytes: float = 0.2) -> bytes:
    """A JSON file whose values are odd, or whose bytes are damaged."""
    if rng.random() < in_bytes:
        return mutate_bytes(json.dumps(value).encode(), rng)
    return json_bytes(mutate_json(value, rng), rng)


def _change_tensor(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    def spoilt(value: float) -> torch.Tensor:
        changed = tensor.clone()
        if changed.numel():
            at = rng.randrange(changed.numel())
            changed.view(-1)[at] = value if changed.is_floating_point() else rng.choice([0, 1, 127])
        return changed

    ways: list[Callable[[], torch.Tensor]] = [
        lambda: tensor.to(rng.choice(DTYPES)),
        lambda: tensor.flatten(),
        lambda: tensor[None],
        lambda: tensor[:0] if tensor.dim() else tensor,
        lambda: tensor[:-1] if tensor.dim() else tensor,
        lambda: torch.cat([tensor, tensor]) if tensor.dim() else tensor[None],
        lambda: tensor.transpose(0, -1) if tensor.dim() > 1 else tensor,
        lambda: torch.zeros(()),
        lambda: torch.zeros([3] * rng.randint(1, 5)),
        lambda: spoilt(float("nan")),
        lambda: spoilt(float("inf")),
        lambda: spoilt(1e38),
    ]
    return rng.choice(ways)().contiguous()


def mutate_safetensors(path: Path, rng: random.Random) -> None:
    """Damage a safetensors file in place: its tensors, their names, its facts, its header or its bytes."""
    how = rng.random()
    data = path.read_bytes()
    if how < 0.25:
        path.write_bytes(mutate_bytes(data, rng))
        return
    if how < 0.45:  # the header: shapes, dtypes and offsets that do not fit the data
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(mutate_json(json.loads(data[8 : 8 + length]), rng)).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
        return
    with safe_open(path, "pt") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice(sorted(tensors)) if tensors else "x"
        kind = rng.randrange(8)
        if kind == 0:
            tensors.pop(name, None)
        elif kind == 1 and name in tensors:
            tensors[rng.choice(["x", name + "x", name.rpartition(".")[0] or "y"])] = tensors.pop(name)
        elif kind == 2 and facts:
            facts[rng.choice(sorted(facts))] = rng.choice([*ODD_TEXTS[:-2], "[]", "{}", "[1]", "7", "1e9"]).encode(
                "utf-8", "replace"
            ).decode()  # fmt: skip
        elif kind == 3 and facts:
            facts.pop(rng.choice(sorted(facts)))
        elif kind == 4 and len(tensors) > 1:
            other = rng.choice(sorted(tensors))
            tensors[name], tensors[other] = tensors[other], tensors[name]
        elif name in tensors:
            tensors[name] = _change_tensor(tensors[name], rng)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, facts)


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their relative names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """The reverse of ``files_in``."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def damage_file(path: Path, rng: random.Random) -> None:
    """Damage a file in place, by its kind."""
    if path.suffix == ".safetensors":
        mutate_safetensors(path, rng)
    elif path.suffix == ".json":
        path.write_bytes(damaged_json(json.loads(path.read_bytes()), rng))
    else:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
