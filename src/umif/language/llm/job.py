"""Runs a job: many requests at a time, each answer kept the moment it comes, stopped and resumed at will.

    items → units (equal messages once) → cache, else endpoint (paced, retried) → judge → accepted, rejected, unfinished

Threads share four things only: the list of units, the cache, the pace and the purse; each has a lock of its own.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from umif.errors import EndpointError, UmifError
from umif.language.llm.cost import Estimate, Price, estimate
from umif.language.llm.endpoint import RequestError, ask
from umif.language.llm.items import SOURCE, Generated, Item, labels_text
from umif.language.llm.judge import UnfitError, judge
from umif.language.llm.pace import FIRST_WAIT_S, Pace, backoff_s
from umif.language.llm.prompts import own_prompts
from umif.language.llm.work import Sampling, Unit, make_units
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from umif.language.llm.cache import Answer, AnswerCache
    from umif.language.llm.endpoint import Endpoint
    from umif.language.llm.prompts import Job, Prompts

# An endpoint that fails this many items in a row, each after all its retries, is down: the job stops, to be resumed.
FAILURES_IN_A_ROW = 5
_LONGEST_ASKED_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How a job may use the endpoint.

    Attributes:
        timeout_s: Of one request, from connecting to its last byte.
        retries: Further sendings of a request that failed on the way.
        budget: Cost at which the job stops; `None` = none.
        first_wait_s: Wait after the first failure; doubles with each further one.
    """

    concurrency: int = 8
    timeout_s: float = 120.0
    retries: int = 6
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    budget: float | None = None
    first_wait_s: float = FIRST_WAIT_S


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item without a fit answer, and why each try was unfit."""

    item: Item
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What became of every item: accepted + rejected + unfinished + idle = items.

    Attributes:
        unfinished: Items that a stop (budget, endpoint, interruption) left; the same command goes on with them.
        idle: Items that there is nothing to ask about (no text, no label).
        stopped_by: Why the job stopped early; empty if it did not.
        problems: How often each kind of failure on the way occurred.
    """

    accepted: list[Generated] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unfinished: list[Item] = field(default_factory=list)
    idle: list[Item] = field(default_factory=list)
    stopped_by: str = ""
    sent: int = 0
    from_cache: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)


class _StoppedError(Exception):
    """The job is stopping; what this unit lacks stays unfinished."""


class _Purse:
    """Money: a request reserves the most that it can cost before it goes out, so the budget is never passed."""

    def __init__(self, budget: float | None) -> None:
        self._budget = budget
        self._turn = threading.Condition()
        self._reserved = 0.0
        self.spent = 0.0

    def reserve(self, most: float, stopping: Callable[[], bool]) -> bool:
        """Return whether the request may go out; waits while others in flight may yet turn out cheaper."""
        with self._turn:
            while self._budget is not None and self.spent + self._reserved + most > self._budget:
                if self._reserved <= 1e-12 or stopping():
                    return False
                self._turn.wait(0.2)
            self._reserved += most
            return True

    def settle(self, most: float, actual: float) -> None:
        """Replace a reservation by what the request did cost."""
        with self._turn:
            self._reserved = max(0.0, self._reserved - most)
            self.spent += actual
            self._turn.notify_all()


class LanguageJob:
    """One job over many items; `plan` says what it will send, `run` does it.

    Args:
        job: translate, polish or reports.
        items: What to work on.
        to: The endpoint.
        sampling: Model and what decides its answers.
        cache: Open cache.
        limits: How the endpoint may be used.
        price: Of tokens.
        prompts: Other instructions than UmiF's own.
    """

    def __init__(
        self,
        job: Job,
        items: Sequence[Item],
        to: Endpoint,
        sampling: Sampling,
        cache: AnswerCache,
        *,
        limits: Limits | None = None,
        price: Price | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        self.job = job
        self.items = list(items)
        self.to = to
        self.sampling = sampling
        self.cache = cache
        self.limits = limits or Limits()
        self.price = price or Price()
        self._prompt = (prompts or own_prompts()).of(job)
        self.units, self.idle = make_units(job, self.items, sampling, prompts)
        self._pace = Pace(self.limits.requests_per_min, self.limits.tokens_per_min)
        self._purse = _Purse(self.limits.budget)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._outcome = Outcome(idle=self.idle)
        self._failures = 0
        self._refusals = 0
        self._fatal: UmifError | None = None

    def plan(self) -> Estimate:
        """Return what would be sent now. Sends nothing."""
        pending: list[tuple[Unit, int]] = []
        cached = 0
        for unit in self.units:
            done = self._answered(unit)
            if done is None:
                cached += len(unit.items)
            else:
                pending.append((unit, done))
        return estimate(
            self.job,
            pending,
            self.sampling,
            self.price,
            items=len(self.items),
            cached=cached + len(self.idle),
            concurrency=self.limits.concurrency,
            requests_per_min=self.limits.requests_per_min,
            tokens_per_min=self.limits.tokens_per_min,
            known=self.cache.answers(),
        )

    def _answered(self, unit: Unit) -> int | None:
        """Return how many tries the cache has answered; `None` if nothing of the unit needs sending."""
        waiting = list(unit.items)
        for attempt in range(self.sampling.tries):
            answer = self.cache.get(unit.key(self.sampling, attempt))
            if answer is None:
                return attempt
            waiting = [item for item in waiting if not self._fits(item, answer)]
            if not waiting:
                return None
        return None

    def _fits(self, item: Item, answer: Answer) -> bool:
        try:
            judge(self.job, item, answer)
        except UnfitError:
            return False
        return True

    def run(self, advance: Callable[[int], None] | None = None) -> Outcome:
        """Send what the cache lacks, and return what became of every item, in their order.

        Ctrl-C lets requests in flight come back and be kept; a second one leaves them.

        Args:
            advance: Called with the number of items just finished, from one helper at a time.

        Raises:
            EndpointError: no request to this endpoint can succeed.
            StorageError: the cache cannot be written.
        """
        queue = deque(enumerate(self.units))
        settled: dict[int, tuple[list[Generated], list[Rejected], list[Item]]] = {}

        def work() -> None:
            while True:
                with self._lock:
                    if not queue:
                        return
                    place, unit = queue.popleft()
                done = self._unit(unit)
                with self._lock:
                    settled[place] = done
                    if advance is not None:
                        advance(len(done[0]) + len(done[1]))

        # Daemons, so that a second Ctrl-C ends the program at once.
        helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(self.limits.concurrency, len(queue)))]
        for helper in helpers:
            helper.start()
        try:
            for helper in helpers:
                while helper.is_alive():
                    helper.join(0.2)  # in short turns, so that Ctrl-C is heard
        except KeyboardInterrupt:
            self._stopping.set()
            for helper in helpers:
                helper.join(self.limits.timeout_s + 1)
            raise
        if self._fatal is not None:
            raise self._fatal
        return self._collected(settled)

    def _collected(self, settled: dict[int, tuple[list[Generated], list[Rejected], list[Item]]]) -> Outcome:
        outcome = self._outcome
        places = {(item.dataset, item.id): number for number, item in enumerate(self.items)}
        for place in sorted(settled):
            accepted, rejected, unfinished = settled[place]
            outcome.accepted += accepted
            outcome.rejected += rejected
            outcome.unfinished += unfinished
        outcome.accepted.sort(key=lambda one: places[one.dataset, one.id])
        outcome.rejected.sort(key=lambda one: places[one.item.dataset, one.item.id])
        outcome.unfinished.sort(key=lambda one: places[one.dataset, one.id])
        outcome.cost = self._purse.spent
        return outcome

    def _unit(self, unit: Unit) -> tuple[list[Generated], list[Rejected], list[Item]]:
        accepted: list[Generated] = []
        reasons: dict[int, list[str]] = {number: [] for number in range(len(unit.items))}
        try:
            for attempt in range(self.sampling.tries):
                if not reasons:
                    break
                key = unit.key(self.sampling, attempt)
                answer = self._answer(unit, attempt, key)
                for number in list(reasons):
                    item = unit.items[number]
                    try:
                        accepted.append(self._generated(item, judge(self.job, item, answer), key))
                        del reasons[number]
                    except UnfitError as error:
                        reasons[number].append(str(error))
        except _StoppedError:
            return accepted, [], [unit.items[number] for number in reasons]
        except RequestError as error:
            return accepted, [Rejected(unit.items[n], (*told, error.what)) for n, told in reasons.items()], []
        except UmifError as error:
            self._abort(error)
            return accepted, [], [unit.items[number] for number in reasons]
        except Exception as error:
            # A helper must not die silently and leave its items out of the account.
            self._abort(EndpointError(f"unexpected {type(error).__name__}: {error}", where=self.to.url))
            return accepted, [], [unit.items[number] for number in reasons]
        return accepted, [Rejected(unit.items[number], tuple(told)) for number, told in reasons.items()], []

    def _generated(self, item: Item, text: str, key: str) -> Generated:
        return Generated(
            id=item.id,
            dataset=item.dataset,
            kind="report",
            text=text,
            source=SOURCE,
            job=self.job,
            model=self.sampling.model,
            prompt=self._prompt.sha256,
            request=key,
            labels=labels_text(item.labels),
        )

    def _answer(self, unit: Unit, attempt: int, key: str) -> Answer:
        known = self.cache.get(key)
        if known is not None:
            with self._lock:
                self._outcome.from_cache += 1
            return known
        payload = unit.payload(self.sampling, attempt)
        most = self.price.of(unit.tokens_in, self.sampling.max_tokens)
        rng = keyed_rng(0, key)
        for failures in range(1, self.limits.retries + 2):
            self._wait(self._pace.reserve(unit.tokens_in + self.sampling.max_tokens))
            if not self._purse.reserve(most, self._stopping.is_set):
                self._stop_for("budget")
                raise _StoppedError
            paid = 0.0
            try:
                with self._lock:
                    self._outcome.sent += 1
                answer = ask(self.to, payload, self.limits.timeout_s)
                paid = self.price.of(answer.tokens_in, answer.tokens_out)
                self.cache.put(key, answer)
                self._succeeded(answer)
                return answer
            except RequestError as error:
                # What may have been worked on without an answer counts at its highest price.
                paid = most if error.billed else 0.0
                self._failed(error)
                wait_s = backoff_s(failures, rng, error.wait_s, self.limits.first_wait_s)
                if error.wait_s:
                    self._pace.pause(error.wait_s)
            finally:
                self._purse.settle(most, paid)
            if failures <= self.limits.retries:
                self._wait(wait_s)
        self._exhausted()
        raise _StoppedError

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _StoppedError
        while (left := self._pace.left_of_pause()) > 0:
            if self._stopping.wait(left):
                raise _StoppedError

    def _succeeded(self, answer: Answer) -> None:
        with self._lock:
            self._failures = self._refusals = 0
            self._outcome.tokens_in += answer.tokens_in
            self._outcome.tokens_out += answer.tokens_out

    def _failed(self, error: RequestError) -> None:
        """Count a failure; what cannot be helped by sending again goes on up."""
        with self._lock:
            self._outcome.problems[error.what] += 1
            if error.items_fault:
                self._refusals += 1
        if error.wait_s is not None and error.wait_s > _LONGEST_ASKED_WAIT_S:
            raise EndpointError(
                f"asks to wait {error.wait_s:.0f} s", where=self.to.url, fix="run it again then: it goes on"
            ) from None
        if error.items_fault and self._refusals >= FAILURES_IN_A_ROW:
            fix = "check --model and the request's fields (--field, --max-tokens-name)"
            raise EndpointError(f"refuses every item: {error.what}", where=self.to.url, fix=fix) from None
        if not error.retry:
            raise error

    def _exhausted(self) -> None:
        with self._lock:
            self._failures += 1
            down = self._failures >= FAILURES_IN_A_ROW
        if down:
            self._stop_for("endpoint")

    def _stop_for(self, reason: str) -> None:
        with self._lock:
            self._outcome.stopped_by = self._outcome.stopped_by or reason
        self._stopping.set()

    def _abort(self, error: UmifError) -> None:
        with self._lock:
            self._fatal = self._fatal or error
        self._stopping.set()
