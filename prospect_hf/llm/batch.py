"""Asks a language model through OpenAI's Batch API: the answers of single calls, at half the price, within a day.

A run of batches lasts for hours, so it may be stopped at any moment and started again: its state lies in a folder, and
the answers go to the cache that single calls use.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import sole_writer
from prospect_hf.llm import batch_api
from prospect_hf.llm.answers import QuestionError, TransientError, parsed, usage
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.batch_files import Batch, BatchFolder, BatchWriter
from prospect_hf.llm.batch_results import (
    Asked,
    Fault,
    failure,
    following_request,
    joint,
    refusals,
    reply_in,
    told_status,
)
from prospect_hf.llm.cache import AnswerCache, looked_up
from prospect_hf.llm.ledger import Ledger, LimitReached
from prospect_hf.llm.questions import Answered, Question, Tries, accepted, raw_answer, said_in
from prospect_hf.llm.server import Server
from prospect_hf.progress import Progress

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Price of a batch as a share of that of single calls (OpenAI, "Batch API").
BATCH_PRICE = 0.5
# A call to the server that fails so often in a row, llm.poll_s apart, ends the run.
PATIENCE = 60
ENDED = {"completed", "failed", "expired", "cancelled"}


class BatchClient:
    """Asks questions in batches and caches the answers.

    Raises:
        UsageError: the model, the key or the openai package is missing, or the address is invalid.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        self.arguments = arguments
        self.server = Server(arguments)
        self.address = self.server.address
        self.cache = AnswerCache(arguments.cache_dir, self.address)
        self.ledger = Ledger(arguments)

    @property
    def spent(self) -> dict[str, float | None]:
        """As :attr:`LLMClient.spent`, at the price of batches. A batch counts in the run that collects it."""
        return self.ledger.facts()

    def answers(self, questions: Iterable[Question], folder: Path, progress: bool = True) -> Iterator[Answered]:
        """The results of ``questions``: those in the cache first, then those of each batch when it ends.

        Failed, expired and rejected requests go into a further batch, at most ``llm.max_retries`` times; the model is
        told why an answer was rejected. Requests lie on the disk, and memory holds a question without its messages.
        The same call with the same ``folder`` goes on where a stopped or killed one was: what was submitted is
        collected and not paid again, even if the questions are not the same any more.

        Args:
            folder: the state of the run; one for each run at a time.
            progress: whether to show it.

        Raises:
            LimitReached: a limit would be exceeded; what was answered has been yielded.
            UsageError: no question can be answered, or another run uses ``folder``; what was answered has been yielded.
            DataError: the state is broken.
        """
        with sole_writer(folder):
            run = _Run(self, BatchFolder(folder, self.address, str(self.arguments.model)))
            try:
                yield from run.prepared(questions)
                yield from run.collected(progress)
            except KeyboardInterrupt:
                logger.warning(
                    "Batches that go on at the server: %d. The same command collects them; their state is in %s.",
                    len(run.submitted),
                    folder,
                )
                raise


class _Run:
    """One call of :meth:`BatchClient.answers`."""

    def __init__(self, client: BatchClient, folder: BatchFolder) -> None:
        self._arguments, self._server = client.arguments, client.server
        self._cache, self._ledger = client.cache, client.ledger
        self._folder = folder
        self._pending: dict[str, list[Asked]] = {}
        # Batches that the server refused as a whole while others ran -> the number that had ended then.
        self._wait: dict[int, int] = {}
        self._ended = 0
        self._fatal: UsageError | None = None
        self._stuck: set[int] = set()

    @property
    def submitted(self) -> list[Batch]:
        """The batches that are at the server."""
        return [batch for batch in self._folder.open if batch.batch_id]

    def prepared(self, questions: Iterable[Question]) -> Iterator[Answered]:
        """Yield what the cache knows, and write all else into new batches, except what is in open ones."""
        for batch in self._folder.open:
            self._folder.verify(batch)
            self._ledger.reserve_batch(batch.most, batch.requests, BATCH_PRICE)
        waiting = {key for batch in self._folder.open for key, _, _ in self._folder.requests(batch)}
        most, new, fitting, limit = (0, 0), 0, 0, None
        with BatchWriter(self._folder, 0, self._arguments.batch_requests, self._server.limit_key) as writer:
            for index, question in enumerate(questions):
                found = looked_up(self._cache, index, question, self._arguments, self._server.limit_key)
                if isinstance(found, Answered):
                    if found.cached:
                        self._ledger.count_cached()
                    yield found
                    continue
                asked = Asked(index, replace(question, messages=()), len(question.messages))
                self._pending.setdefault(found.key, []).append(asked)
                if len(self._pending[found.key]) > 1 or found.key in waiting:
                    continue
                extra = found.request.pop("extra_body", {})  # in a single call, the openai client joins them
                body = {**found.request, **extra}
                given, written = writer.add(found.key, body, found.tries)
                most, new = (most[0] + given, most[1] + written), new + 1
                limit = limit or self._ledger.exceeded(most, new, BATCH_PRICE)
                fitting += limit is None
        if limit is None:
            self._add(writer.batches)
            return
        usd = self._ledger.usd(most, BATCH_PRICE)
        cost = f"{sum(most)} tokens" + ("" if usd is None else f" and ${usd:.4f}")
        self._fatal = LimitReached(
            f"llm.{limit}: {new} questions may take up to {cost} in batches, and the first {fitting} of them fit: "
            f"raise the limit, or ask fewer questions; none of them was submitted."
        )

    def collected(self, progress: bool) -> Iterator[Answered]:
        """Submit and watch the batches until all have been collected; yield what they give."""
        total, note = sum(map(len, self._pending.values())), ""
        title = f"asking {self._arguments.model} in batches"
        with Progress(total, title, "question", show=progress, lines=False) as bar:
            while batches := self._active():
                told = []
                for batch in batches:
                    if not batch.batch_id and not self._submitted(batch):
                        continue
                    facts = self._patiently(partial(batch_api.look, self._server, batch.batch_id))
                    if facts["status"] not in ENDED:
                        told.append(told_status(facts, batch.requests))
                        continue
                    for answered in self._collect(batch, facts):
                        bar.update()
                        yield answered
                if told and ", ".join(told) != note:
                    note = ", ".join(told)
                    bar.report(note)
                if self._active():
                    time.sleep(self._arguments.poll_s)
        if self._fatal is not None:
            raise self._fatal

    def _active(self) -> list[Batch]:
        """The batches to go on with: once the run has failed, only those that are at the server."""
        open_ones = [batch for batch in self._folder.open if batch.number not in self._stuck]
        return [batch for batch in open_ones if batch.batch_id or self._fatal is None]

    def _add(self, batches: list[Batch]) -> None:
        """Take up new batches, and write the state before anything of them is sent."""
        for batch in batches:
            self._ledger.reserve_batch(batch.most, batch.requests, BATCH_PRICE)
        self._folder.batches += batches
        if self._folder.batches:
            self._folder.save()

    def _submitted(self, batch: Batch) -> bool:
        """Submit a batch, unless it must wait until another ends; whether it is at the server.

        It is looked for there first: the process may have been killed, or the reply lost, before its id was written.
        """
        others = [other for other in self._active() if other.batch_id]
        if others and self._wait.get(batch.number) == self._ended:
            return False
        if not batch.file_id:
            path = self._folder.requests_path(batch.number)
            try:
                batch.file_id = self._patiently(partial(batch_api.upload, self._server, path))
            except UsageError as error:
                raise UsageError(f"{error} llm.batch=true needs a server with OpenAI's Batch API.") from None
            self._folder.save()
        batch.batch_id = self._patiently(
            lambda: (
                batch_api.find(self._server, batch.mark) or batch_api.submit(self._server, batch.file_id, batch.mark)
            )
        )
        self._folder.save()
        return True

    def _refused(self, batch: Batch, reason: str) -> None:
        """A batch was refused as a whole, which costs nothing: submit it again, after another where others run.

        Servers limit the tokens that wait in all batches together.
        """
        others = [other for other in self._active() if other.batch_id and other is not batch]
        batch.refused += not others
        if batch.refused > self._arguments.max_retries:
            batch.done = True
            self._ledger.settle_batch(batch.most, batch.requests, (0, 0), BATCH_PRICE)
            self._fatal = UsageError(
                f"{self._server.address} refused a batch of {batch.requests} requests {batch.refused} times "
                f"({reason}): check llm.model, or lower llm.batch_requests; the same command submits it anew."
            )
        else:
            batch.batch_id, batch.mark = "", secrets.token_hex(16)
            self._wait[batch.number] = self._ended
        self._folder.save()

    def _collect(self, batch: Batch, facts: dict[str, Any]) -> Iterator[Answered]:
        """Yield what an ended batch gave, and put into a new batch what is to be asked again."""
        lines, reason = refusals(facts, self._server.secret)
        if facts["status"] == "failed" and not lines:
            self._refused(batch, reason)
            return
        sent = self._sent(batch)
        tries = self._folder.tries(batch)
        faults: dict[str, Fault] = {
            key: Fault(QuestionError(f"{self._server.address} refused the request ({lines[number]})."))
            for number, key in enumerate(sent, 1)
            if number in lines
        }
        used = 0, 0
        for key, item in self._items(facts):
            if key not in sent:
                continue
            reply = reply_in(item, self._server, self._arguments.api_key_env)
            if isinstance(reply, Fault):
                faults[key] = reply
                continue
            size, limit, question = sent[key]
            tokens = usage(reply) or (size, limit)
            used = used[0] + tokens[0], used[1] + tokens[1]
            paid = tries.setdefault(key, Tries())
            paid.add(tokens, self._ledger.usd(tokens, BATCH_PRICE))
            try:
                answer = accepted(reply, question, self._server.secret)
            except DataError as fault:
                paid.raw.append(raw_answer(reply, self._server.secret))
                faults[key] = Fault(fault, said_in(reply, self._server.secret))
                continue
            self._cache.save(key, question.name, str(self._arguments.model), answer, paid)
            del sent[key]
            for number, asked in enumerate(self._pending.pop(key, [])):
                yield paid.outcome(asked.index, answer, cached=number > 0)
        self._ledger.settle_batch(batch.most, batch.requests, used, BATCH_PRICE)
        self._ended += 1
        yield from self._ask_again(batch, {key: faults.get(key) for key in sent if key in self._pending}, tries, facts)

    def _ask_again(
        self, batch: Batch, faults: dict[str, Fault | None], tries: dict[str, Tries], facts: dict[str, Any]
    ) -> Iterator[Answered]:
        """Write a further batch of the requests that gave no answer, and yield those that are not asked again."""
        if facts["status"] == "cancelled" and faults:
            self._fatal = UsageError(
                f"The batch {batch.batch_id} was cancelled before {len(faults)} of its requests were answered: the "
                f"same command submits these anew."
            )
            faults = {}
        nothing = Fault(TransientError(f"a batch that is {facts['status']} has no result", "run again later"))
        last = batch.round >= self._arguments.max_retries
        failed: dict[str, DataError | QuestionError] = {}
        round_number, most_requests = batch.round + 1, self._arguments.batch_requests
        with BatchWriter(self._folder, round_number, most_requests, self._server.limit_key) as writer:
            for key, body, _ in self._folder.requests(batch) if faults else ():
                if key not in faults:
                    continue
                fault, asked = faults[key] or nothing, self._pending[key][0]
                following = (
                    None if last else following_request(body, asked, fault, self._arguments, self._server.limit_key)
                )
                if following is None:
                    attempts = max(batch.round + 1, tries.get(key, Tries()).count)
                    failed[key] = failure(fault, asked.question, body, attempts, self._server.limit_key)
                else:
                    writer.add(key, following, tries.get(key, Tries()))
        for key, error in failed.items():
            for asked in self._pending.pop(key):
                yield tries.get(key, Tries()).outcome(asked.index, None, error)
        most = sum(new.input_tokens for new in writer.batches), sum(new.output_tokens for new in writer.batches)
        requests = sum(new.requests for new in writer.batches)
        if requests and (limit := self._ledger.exceeded(most, requests, BATCH_PRICE)):
            # The batch stays open: the same command collects it again, for nothing, and goes on from there.
            self._stuck.add(batch.number)
            self._fatal = LimitReached(
                f"llm.{limit}: {requests} requests that gave no answer may take up to {sum(most)} tokens more: raise "
                f"the limit and run again; answers so far are kept in {self._arguments.cache_dir}."
            )
            return
        batch.done = True
        self._add(writer.batches)

    def _sent(self, batch: Batch) -> dict[str, tuple[int, int, Question]]:
        """Key -> (bytes, limit of tokens, question) of the requests of a batch, in their order.

        A request that no question of this call asks was paid for all the same: its answer goes to the cache.
        """
        sent: dict[str, tuple[int, int, Question]] = {}
        for key, body, size in self._folder.requests(batch):
            if key in self._pending:
                question = joint([asked.question for asked in self._pending[key]])
            else:
                form = body["response_format"]["json_schema"]
                question = Question((), form["schema"], form["name"])
            sent[key] = size, body[self._server.limit_key], question
        return sent

    def _items(self, facts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, result) of the result files of a batch, in any order; a line that cannot be read is no result."""
        for name in (facts.get("output_file_id"), facts.get("error_file_id")):
            if not isinstance(name, str):
                continue
            with self._patiently(partial(batch_api.download, self._server, name, self._folder.path)) as file:
                for line in file:
                    item = parsed(line.decode("utf-8", "replace"))
                    if isinstance(item, dict) and isinstance(item.get("custom_id"), str):
                        yield item["custom_id"], item

    def _patiently(self, call: Callable[[], T]) -> T:
        """The result of a call to the server that may fail now and then; what waits there does not get lost."""
        for attempt in range(PATIENCE):
            try:
                return call()
            except TransientError as failure:
                if attempt + 1 == PATIENCE:
                    raise UsageError(
                        f"{failure}, {PATIENCE} times in a row; {failure.hint}. What was submitted goes on there: the "
                        f"same command collects it."
                    ) from None
                logger.warning("%s; the next attempt follows.", failure)
                time.sleep(max(self._arguments.poll_s, failure.wait_s or 0.0))
        raise AssertionError("the last attempt returns or raises")
