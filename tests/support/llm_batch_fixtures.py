"""The endpoints of files and batches of the fake language-model server: kept in memory, one step at each look."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs

# What the looks at a batch show, one after another.
COURSE = ("validating", "in_progress", "finalizing", "completed")
MISSING = 404, b'{"error": {"message": "no such thing"}}'
# Status and body; then headers, and whether the connection is lost in the middle.
Answer = tuple[int, bytes] | tuple[int, bytes, None, bool]


@dataclass
class FakeBatches:
    """Files and batches, by id, and what is to happen to them.

    Args:
        files: content by id.
        batches: as the server tells them, oldest first.
        invalid: numbers of batches (from 0, in the order of their creation) that fail validation -> the errors.
        ends: numbers of batches -> the last status, "expired" or "cancelled" instead of "completed".
        asked: requests that were answered in batches.
        on: called with "uploaded", "created", "polled" or "downloaded" before the reply that tells so is sent: a test
            kills its client there.
        most_listed: batches on one page of the list.
        refused: the reply to everything, where given.
        broken: so many result files break off in the middle.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    invalid: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    asked: int = 0
    on: Callable[[str], None] = lambda stage: None
    most_listed: int = 2
    refused: tuple[int, bytes] | None = None
    broken: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def post(self, url: SplitResult, content_type: str, data: bytes) -> Answer:
        """The reply to an upload or to a new batch."""
        if self.refused is not None:
            return self.refused
        with self.lock:
            if url.path == "/v1/files":
                name = f"file-{len(self.files)}"
                parts = _parts(content_type, data)
                assert parts["purpose"] == b"batch"
                self.files[name] = parts["file"]
                answer, stage = {"id": name, "object": "file", "purpose": "batch", "bytes": len(data)}, "uploaded"
            elif url.path == "/v1/batches":
                answer, stage = self._create(json.loads(data)), "created"
            else:
                return MISSING
        self.on(stage)
        return 200, json.dumps(answer).encode()

    def get(self, url: SplitResult, ask: Callable[[dict[str, Any]], Any]) -> Answer:
        """The reply to a look; ``ask`` gives the reply (``Reply``) to one request of a batch."""
        match url.path.removeprefix("/v1/").split("/"):
            case ["batches"]:
                with self.lock:
                    return 200, json.dumps(self._page(parse_qs(url.query))).encode()
            case ["batches", name] if name in self.batches:
                with self.lock:
                    batch = self._advance(self.batches[name], ask)
                self.on("polled")
                return 200, json.dumps(batch).encode()
            case ["files", name, "content"] if name in self.files:
                self.on("downloaded")
                self.broken -= 1
                return 200, self.files[name], None, self.broken >= 0
        return MISSING

    def _create(self, given: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        total = len(self.files[given["input_file_id"]].splitlines())
        batch = {
            "id": f"batch_{number}",
            "object": "batch",
            "status": COURSE[0],
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "request_counts": {"total": total, "completed": 0, "failed": 0},
            **given,
        }
        self.batches[batch["id"]] = batch
        return batch

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest_first = list(self.batches.values())[::-1]
        if "after" in query:
            names = [batch["id"] for batch in newest_first]
            newest_first = newest_first[names.index(query["after"][0]) + 1 :]
        page = newest_first[: self.most_listed]
        more = len(newest_first) > len(page)
        return {"object": "list", "data": page, "has_more": more, "last_id": page[-1]["id"] if page else None}

    def _advance(self, batch: dict[str, Any], ask: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """One step on the course of a batch; the requests are answered at its end."""
        number = int(batch["id"].removeprefix("batch_"))
        if batch["status"] == "validating" and number in self.invalid:
            batch |= {"status": "failed", "errors": {"object": "list", "data": self.invalid[number]}}
        elif batch["status"] in COURSE[:-1]:
            batch["status"] = COURSE[COURSE.index(batch["status"]) + 1]
            if batch["status"] == "completed":
                batch["status"] = self.ends.get(number, "completed")
                self._answer(batch, ask)
        return batch

    def _answer(self, batch: dict[str, Any], ask: Callable[[dict[str, Any]], Any]) -> None:
        """Write the output file and the error file; the newest request comes first, since no order is promised."""
        outputs, errors = [], []
        for line in reversed(self.files[batch["input_file_id"]].splitlines()):
            asked = json.loads(line)
            reply = ask(asked["body"])
            item: dict[str, Any] = {"id": "x", "custom_id": asked["custom_id"], "response": None, "error": None}
            if reply.dropped:
                continue
            if reply.expired:
                item["error"] = {"code": "batch_expired", "message": "This request could not be executed in time."}
                errors.append(item)
                continue
            try:
                body = json.loads(reply.text())
            except ValueError:
                body = {"error": {"message": reply.text()}}
            item["response"] = {"status_code": reply.status, "request_id": "r", "body": body}
            (outputs if reply.status == 200 else errors).append(item)
        for key, items in {"output_file_id": outputs, "error_file_id": errors}.items():
            if items:
                batch[key] = f"{key.removesuffix('_id')}-{batch['id']}"
                self.files[batch[key]] = "".join(json.dumps(item) + "\n" for item in items).encode()
        counts = {"total": batch["request_counts"]["total"], "completed": len(outputs), "failed": len(errors)}
        batch["request_counts"] = counts


def _parts(content_type: str, data: bytes) -> dict[str, bytes]:
    """Name -> content of the parts of a multipart form."""
    boundary = b"--" + content_type.partition("boundary=")[2].strip('"').encode()
    parts = {}
    for part in data.split(boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        assert name is not None
        parts[name[1].decode()] = content.removesuffix(b"\r\n")
    return parts
