"""Client of OpenAI-compatible language-model servers; answers are JSON that fits a given schema.

Judging and label generation send thousands of requests, which cost money, to servers that sometimes fail. Every answer
is therefore cached on disk, an interrupted run continues where it stopped, and requests, tokens and dollars are counted
and limited. The API key is read from the environment only, and is removed from all text that a server returns.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm.answers import MAX_WAIT_S, NoCompletionError, QuestionError, TransientError, usage
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.cache import AnswerCache, looked_up
from prospect_hf.llm.ledger import Ledger
from prospect_hf.llm.pacing import Pacer
from prospect_hf.llm.questions import (
    Answered,
    Question,
    Tries,
    accepted,
    next_request,
    raw_answer,
    refused,
    request_of,
    said_in,
)
from prospect_hf.llm.server import Server
from prospect_hf.progress import Progress

# Wait before the second attempt, in seconds; it doubles with each attempt up to MAX_WAIT_S. Between half and all of it
# is waited, so that questions refused together are not asked together again. Retry-After overrides it.
FIRST_WAIT_S = 0.5
# So many questions that fail one after another, without an answer between them, end a run.
GIVE_UP_AFTER = 3
# Failed questions whose reason is told.
TOLD_REASONS = 5
# Questions that are taken ahead of those being asked, as a multiple of their number, so that no thread is idle.
AHEAD = 2


class LLMClient:
    """Sends questions to a server and caches the answers; threads may share one client.

    A rejected answer's next try is told what was wrong: the answer and its fault go in as messages.

    Raises:
        UsageError: the model, the key or the openai package is missing, the address is invalid, or ``batch`` is set.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        if arguments.batch:
            raise UsageError("This command asks by single calls: leave llm.batch=true out.")
        self.arguments = arguments
        self._server = Server(arguments)
        self.address = self._server.address
        self._cache = AnswerCache(arguments.cache_dir, self.address)
        self._ledger = Ledger(arguments)
        self._pacer = Pacer(arguments.requests_per_minute, arguments.tokens_per_minute)
        self._asked: set[str] = set()
        self._asked_change = threading.Condition()

    @property
    def spent(self) -> dict[str, float | None]:
        """``requests`` sent, ``cached`` answers, ``input_tokens``, ``output_tokens`` and ``usd`` of this client.

        A request without reported usage, such as one that timed out, counts as its upper bound: one input token per
        byte, and ``max_output_tokens``. ``usd`` is None without prices.
        """
        return self._ledger.facts()

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], name: str, seed: int = 0
    ) -> dict[str, Any]:
        """The answer to one question; a question asked before is answered from the cache.

        Args:
            messages, schema, name, seed: as in :class:`Question`.

        Raises:
            UsageError: the server cannot be used, or a limit is reached.
            DataError: no attempt gave an answer that fits the schema, or a cache file is broken.
        """
        answered = self._answered(0, Question(messages, schema, name, seed), threading.Event())
        if answered.answer is None:
            raise answered.error or AssertionError("a question has an answer or an error")
        return answered.answer

    def answers(self, questions: Iterable[Question]) -> Iterator[Answered]:
        """The results of ``questions``, each as soon as it is there, ``concurrency`` at a time.

        Questions are taken as they are needed, so an endless supply of them takes no more memory. A question without a
        usable answer is yielded too, with its error and the rejected answers. What makes all questions fail, such as a
        wrong key, a limit that is reached, or a server that fails or gives replies that are no model's for three
        questions in a row, is raised, after the answers that were on their way have been yielded. All answers are
        cached: a second run pays only for what is missing. A cached answer that no longer passes its question's check
        is asked for anew, and the model is told the fault; the new answer takes its place.

        Example:
            >>> questions = [Question(messages(video), SCHEMA, "steps", title=video.uid, check=fault) for video in ...]
            >>> for answered in client.answers(questions):
            ...     if answered.answer is None:
            ...         failed(videos[answered.index], str(answered.error), answered.raw)
            ...     else:
            ...         label(videos[answered.index], answered.answer, answered.usd)

        Raises:
            LimitReached: a limit of the settings keeps the next request from being sent.
            UsageError: no question can be answered.
        """
        stop = threading.Event()
        numbered = enumerate(questions)
        running: set[Future[Answered]] = set()
        fatal: BaseException | None = None
        failed_in_a_row = 0
        with ThreadPoolExecutor(self.arguments.concurrency) as pool:
            try:
                while True:
                    while fatal is None and len(running) < AHEAD * self.arguments.concurrency:
                        following = next(numbered, None)
                        if following is None:
                            break
                        running.add(pool.submit(self._answered, *following, stop))
                    if not running:
                        break
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        failure = future.exception()
                        if failure is not None:
                            fatal = fatal or (None if isinstance(failure, CancelledError) else failure)
                            stop.set()
                            continue
                        answered = future.result()
                        if answered.answer is not None:
                            failed_in_a_row = 0
                        elif isinstance(answered.error, QuestionError | NoCompletionError):
                            failed_in_a_row += 1
                            if failed_in_a_row == GIVE_UP_AFTER:
                                fatal = fatal or _of_all(answered.error)
                                stop.set()
                        yield answered
            finally:
                stop.set()  # what still waits in the pool sends no request
        if fatal is not None:
            raise fatal

    def ask_many(self, questions: Sequence[Question], progress: bool = True) -> list[dict[str, Any]]:
        """Answers in the order of the questions, as :meth:`answers` gets them.

        Raises:
            DataError: at the end, with the questions that have no answer and the reasons.
            UsageError: as in ``answers``.
        """
        results: dict[int, dict[str, Any]] = {}
        failed: dict[int, Exception] = {}
        with Progress(len(questions), f"asking {self.arguments.model}", "question", show=progress) as bar:
            for answered in self.answers(questions):
                if answered.answer is not None:
                    results[answered.index] = answered.answer
                elif answered.error is not None:
                    failed[answered.index] = answered.error
                bar.update()
        if failed:
            raise DataError(self._told(questions, failed))
        return [results[index] for index in range(len(questions))]

    def _told(self, questions: Sequence[Question], failed: Mapping[int, Exception]) -> str:
        """A sentence with the failed questions, and the reasons of the first of them."""
        names = {index: questions[index].title or f"question {index + 1}" for index in sorted(failed)}
        reasons = [f"{name}: {str(failed[index]).rstrip('.')}" for index, name in names.items()]
        unexplained = list(names.values())[TOLD_REASONS:]
        rest = [f"and, for such reasons, {', '.join(unexplained)}"] if unexplained else []
        return (
            f"{len(failed)} of {len(questions)} questions have no answer, the others are kept in "
            f"{self.arguments.cache_dir}; run again to ask these alone: {'; '.join([*reasons[:TOLD_REASONS], *rest])}."
        )

    def _answered(self, index: int, question: Question, stop: threading.Event) -> Answered:
        """What comes of one question. Raises what makes all fail, and ``CancelledError`` once ``stop`` is set."""
        key = self._cache.key(request_of(question, self.arguments, self._server.limit_key))
        with self._alone(key, stop):
            found = looked_up(self._cache, index, question, self.arguments, self._server.limit_key)
            if isinstance(found, Answered):
                if found.cached:
                    self._ledger.count_cached()
                return found
            tries = found.tries
            try:
                answer = self._asked_for(found.request, question, tries, stop)
            except (DataError, QuestionError) as error:
                return tries.outcome(index, None, error)
            self._cache.save(key, question.name, str(self.arguments.model), answer, tries)
        return tries.outcome(index, answer)

    def _asked_for(
        self, request: dict[str, Any], question: Question, tries: Tries, stop: threading.Event
    ) -> dict[str, Any]:
        """The accepted answer to a request or one of those that follow it; ``tries`` counts them."""
        wait_s, attempts = FIRST_WAIT_S, self.arguments.max_retries + 1
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            try:
                body = self._send(request, tries, stop)
            except TransientError as failure:
                if last:
                    raise QuestionError(f"{failure}, in {attempts} attempts; {failure.hint}.") from None
                if failure.wait_s is not None:
                    self._pacer.pause(failure.wait_s)
                else:
                    stop.wait(random.uniform(wait_s / 2, wait_s))
                    wait_s = min(2 * wait_s, MAX_WAIT_S)
                continue
            try:
                return accepted(body, question, self._server.secret)
            except DataError as fault:
                tries.raw.append(raw_answer(body, self._server.secret))
                said, asked = said_in(body, self._server.secret), len(question.messages)
                following = next_request(request, asked, fault, said, self.arguments, self._server.limit_key)
                if last or following is None:
                    kind = NoCompletionError if isinstance(fault, NoCompletionError) else DataError
                    raise kind(refused(question, request, fault, attempts, self._server.limit_key)) from None
                request = following
                if isinstance(fault, NoCompletionError):  # some servers say so that they are busy
                    stop.wait(random.uniform(wait_s / 2, wait_s))
                    wait_s = min(2 * wait_s, MAX_WAIT_S)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _alone(self, key: str, stop: threading.Event) -> Iterator[None]:
        """Hold the right to ask a request: of two equal questions, the second waits for the first one's answer."""
        with self._asked_change:
            while key in self._asked:
                self._asked_change.wait(0.1)
                if stop.is_set():
                    raise CancelledError
            self._asked.add(key)
        try:
            yield
        finally:
            with self._asked_change:
                self._asked.remove(key)
                self._asked_change.notify_all()

    def _send(self, request: dict[str, Any], tries: Tries, stop: threading.Event) -> str:
        """The body of the server's reply to one request, which is paced, reserved, counted and settled."""
        # Upper bound of the input tokens: a token has at least one byte.
        most = len(json.dumps(request, ensure_ascii=False).encode()), request[self._server.limit_key]
        if stop.is_set():
            raise CancelledError
        self._ledger.reserve(most)
        used, expected = (0, 0), 0.0
        try:
            expected = self._pacer.take(sum(most), stop)
            if stop.is_set():  # it was set while this thread waited
                raise CancelledError
            used = most  # a request may be billed even if its reply is lost
            body = self._server.complete(request)
            used = usage(body) or most
            return body
        except TransientError as failure:
            used = most if failure.maybe_billed else (0, 0)
            raise
        except UsageError:
            used = 0, 0
            raise
        finally:
            self._ledger.settle(most, used)
            self._pacer.settle(expected, sum(most), sum(used))
            tries.add(used, self._ledger.usd(used))


def _of_all(error: QuestionError | NoCompletionError) -> UsageError:
    """The error of a run whose questions fail one after another as this one did."""
    if isinstance(error, QuestionError):
        return error
    return UsageError(f"{str(error).rstrip('.')}: check llm.base_url; {GIVE_UP_AFTER} questions in a row failed so.")
