"""Jobs against a real server that errs, stalls, cuts, lies and closes: nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, serving, told
from umif.errors import EndpointError, InputError
from umif.language.llm import AnswerCache, Item, LanguageJob, Limits, Price, Sampling, endpoint, key_from
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from pathlib import Path

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN
# Time enough for a machine that is busy; only what never answers is given up sooner.
FAST = Limits(concurrency=8, timeout_s=20, retries=4, first_wait_s=0.01)
IMPATIENT = Limits(concurrency=8, timeout_s=1.5, retries=4, first_wait_s=0.01)
WORDS = {
    "derrame": "There is a pleural effusion.",
    "cardiomegalia": "The heart is enlarged.",
    "sin neumotorax": "There is no pneumothorax.",
    "normal": "The radiograph is normal.",
}


def english(spanish: str) -> str:
    return " ".join(
        WORDS.get(part.strip(), f"Case number {part.strip()[5:]} is on file.") for part in spanish.split(".")
    )


def user_text(body: dict[str, Any]) -> str:
    text: str = body["messages"][1]["content"]
    return text.partition("\n")[2]


def right(body: dict[str, Any], _: int = 0) -> Reply:
    return Reply(told(english(user_text(body))))


def items(count: int) -> list[Item]:
    parts = list(WORDS)
    return [Item(f"i{n}", "open", f"caso {n}. {parts[n % 3]}", where=f"x:{n}") for n in range(count)]


def job(server: ChatServer, cache: AnswerCache, work: list[Item], **options: Any) -> LanguageJob:
    kind = options.pop("kind", "translate")
    sampling = Sampling(model="m", **options.pop("sampling", {}))
    return LanguageJob(kind, work, endpoint(server.url), sampling, cache, **{"limits": FAST, **options})


def test_every_item_is_translated_once_and_a_second_run_sends_nothing(tmp_path: Path) -> None:
    work = items(20)
    with serving(right) as server:
        for expected in (20, 20):
            with AnswerCache(tmp_path / "c") as cache:
                outcome = job(server, cache, work).run()
            assert [one.id for one in outcome.accepted] == [item.id for item in work]
            assert [one.text for one in outcome.accepted] == [english(item.text) for item in work]
            assert len(server.seen.bodies) == expected
    assert (outcome.sent, outcome.from_cache) == (0, 20)
    one = outcome.accepted[0]
    assert (one.source, one.kind, one.model, one.job) == ("llm", "report", "m", "translate")
    assert len(one.prompt) == len(one.request) == 64


def test_equal_texts_are_sent_once(tmp_path: Path) -> None:
    work = [Item(f"i{n}", "open", "derrame") for n in range(50)]
    with serving(right) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, work).run()
        assert len(server.seen.bodies) == 1
    assert [one.id for one in outcome.accepted] == [f"i{n}" for n in range(50)]


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.9}, {"seed": 5}, {"max_tokens": 99}, {"extra": {"top_p": 0.5}}],
)
def test_a_changed_parameter_asks_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    with serving(right) as server, AnswerCache(tmp_path / "c") as cache:
        to = endpoint(server.url)
        LanguageJob("translate", items(2), to, Sampling(model="m"), cache, limits=FAST).run()
        LanguageJob("translate", items(2), to, Sampling(**{"model": "m", **change}), cache, limits=FAST).run()
        assert len(server.seen.bodies) == 4


TROUBLES = {
    "server error": Reply(status=500, raw=b"oops"),
    "busy": Reply(status=429, raw=b"{}", headers={"Retry-After": "0.05"}),
    "busy until a date": Reply(status=503, raw=b"", headers={"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}),
    "closed": Reply(close=True),
    "stalled": Reply(stall=True),
    "dripping": Reply(told("The heart is enlarged and there is no other finding in this text."), drip=True),
    "cut": Reply(told("The heart is enlarged."), cut=9),
    "no JSON": Reply(raw=b"<html>welcome</html>"),
    "no choices": Reply(raw=b'{"choices": []}'),
    "no content": Reply(raw=b'{"choices": [{"message": {"content": null}}]}'),
    "a list": Reply(raw=b"[[[[1]]]]"),
    "nothing": Reply(raw=b""),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_failure_on_the_way_is_tried_again(tmp_path: Path, name: str) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        return TROUBLES[name] if number < 2 else right(body)

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        limits = IMPATIENT if TROUBLES[name].stall or TROUBLES[name].drip else FAST
        outcome = job(server, cache, items(2), limits=limits).run()
        assert len(server.seen.bodies) == 6
        assert set(server.seen.delivered.values()) <= {1, 3}  # a dripped answer is whole when nobody waits any more
    assert len(outcome.accepted) == 2
    assert sum(outcome.problems.values()) == 4


UNFIT = {
    "another language": (told("No se observa derrame pleural en el torax."), "stop", "not English"),
    "no object": ("The heart is enlarged.", "stop", "no JSON object"),
    "cut off": (told("The heart is"), "length", "longest length"),
    "filtered": (told("The heart is normal."), "content_filter", "content_filter"),
    "empty": (told(" "), "stop", "empty"),
    "contradiction": (told("There is no pleural effusion."), "stop", "denies pleural_effusion"),
    "chatter": (told("As an AI language model I translate: the heart is enlarged."), "stop", "talks"),
    "far too long": (told("the heart is enlarged and so on " * 40), "stop", "words where"),
    "a loop": (told("The heart is big. " * 6), "stop", "repeats"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_answer_is_asked_for_anew_with_another_seed_then_rejected(tmp_path: Path, name: str) -> None:
    text, finish, reason = UNFIT[name]
    item = Item("a", "open", "derrame", (("Effusion", P),))
    with serving(lambda *_: Reply(text, finish=finish)) as server:
        for _ in range(2):
            with AnswerCache(tmp_path / "c") as cache:
                outcome = job(server, cache, [item]).run()
        seeds = [(body["seed"], body["temperature"]) for body in server.seen.bodies]
    assert seeds == [(0, 0.3), (1, 0.45), (2, 0.6)]  # and nothing in the second run
    assert not outcome.accepted
    assert [reason in told_why for told_why in outcome.rejected[0].reasons] == [True] * 3


def test_an_unfit_answer_is_replaced_by_a_fit_one(tmp_path: Path) -> None:
    def script(body: dict[str, Any], _: int) -> Reply:
        return Reply("nonsense") if body["seed"] == 0 else right(body)

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, items(3)).run()
        assert len(server.seen.bodies) == 6
    assert len(outcome.accepted) == 3


def test_one_answer_may_fit_one_item_and_not_another(tmp_path: Path) -> None:
    work = [Item("a", "open", "derrame", (("Effusion", P),)), Item("b", "open", "derrame", (("Effusion", A),))]
    with serving(right) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, work).run()
    assert [one.id for one in outcome.accepted] == ["a"]
    assert [one.item.id for one in outcome.rejected] == ["b"]


def test_reports_are_written_in_several_wordings_of_equal_labels(tmp_path: Path) -> None:
    labels = (("Effusion", P), ("Pneumothorax", A), ("Edema", U))
    work = [Item(f"i{n}", "open", "", labels) for n in range(40)]
    work.append(Item("none", "open", "", (("Effusion", LabelState.NOT_MENTIONED),)))

    def script(body: dict[str, Any], _: int) -> Reply:
        lines = user_text(body)
        assert "pleural effusion: present" in lines
        number = body["seed"]
        return Reply(
            told(f"A pleural effusion is seen in wording {number}. No pneumothorax. Possible pulmonary edema.")
        )

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, work, kind="reports", sampling={"variants": 4}).run()
        assert len(server.seen.bodies) == 4
    assert len(outcome.accepted) == 40
    assert len({one.text for one in outcome.accepted}) == 4
    assert [item.id for item in outcome.idle] == ["none"]


def test_the_budget_is_never_passed_and_more_money_goes_on(tmp_path: Path) -> None:
    price = Price(1000.0, 1000.0)  # an answer costs 0.12, at most 0.8 + what is sent
    with serving(right) as server:
        with AnswerCache(tmp_path / "c") as cache:
            first = job(server, cache, items(30), price=price, limits=Limits(4, 20, 1, budget=3.0)).run()
        assert first.stopped_by == "budget"
        assert 0 < first.cost <= 3.0
        assert len(first.accepted) + len(first.unfinished) == 30
        assert len(first.accepted) == len(server.seen.bodies) > 5
        with AnswerCache(tmp_path / "c") as cache:
            second = job(server, cache, items(30), price=price, limits=FAST).run()
        assert len(second.accepted) == 30 == len(server.seen.bodies)


def test_what_may_have_been_paid_for_without_an_answer_counts_at_its_highest(tmp_path: Path) -> None:
    limits = Limits(1, 0.3, 3, budget=2.0, first_wait_s=0.01)
    with serving(lambda *_: Reply(stall=True)) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, items(1), price=Price(0, 1000.0), limits=limits).run()
        assert len(server.seen.bodies) == 2
    assert outcome.stopped_by == "budget"
    assert outcome.cost == pytest.approx(1.6)


def test_an_endpoint_that_is_down_stops_the_job_and_loses_nothing(tmp_path: Path) -> None:
    with serving(right) as server, AnswerCache(tmp_path / "c") as cache:
        job(server, cache, items(5)).run()
        server.script = lambda *_: Reply(status=502, raw=b"")
        limits = Limits(2, 1, 1, first_wait_s=0.01)
        outcome = job(server, cache, items(100), limits=limits).run()
    assert outcome.stopped_by == "endpoint"
    assert (len(outcome.accepted), len(outcome.unfinished)) == (5, 95)
    assert outcome.sent < 40


@pytest.mark.parametrize(
    ("status", "fix"), [(401, "--key-env"), (403, "rights"), (404, "--model"), (302, "--endpoint")]
)
def test_an_endpoint_that_will_never_answer_is_an_error_at_once(tmp_path: Path, status: int, fix: str) -> None:
    reply = Reply(status=status, raw=b'{"error": {"message": "not you"}}', headers={"Location": "http://127.0.0.1:1/"})
    with serving(lambda *_: reply) as server, AnswerCache(tmp_path / "c") as cache:
        with pytest.raises(EndpointError, match=str(status)) as caught:
            job(server, cache, items(200)).run()
        assert len(server.seen.bodies) <= FAST.concurrency
    assert fix in str(caught.value)


def test_an_item_that_is_refused_is_rejected_and_the_others_go_on(tmp_path: Path) -> None:
    def script(body: dict[str, Any], _: int) -> Reply:
        bad = "caso 3." in user_text(body)
        return Reply(status=400, raw=b'{"error": {"message": "too long"}}') if bad else right(body)

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, items(10)).run()
    assert [one.item.id for one in outcome.rejected] == ["i3"]
    assert "too long" in outcome.rejected[0].reasons[0]
    assert len(outcome.accepted) == 9


def test_an_endpoint_that_refuses_every_item_is_an_error(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(status=422, raw=b"{}")) as server, AnswerCache(tmp_path / "c") as cache:
        with pytest.raises(EndpointError, match="refuses every item"):
            job(server, cache, items(100)).run()
        assert len(server.seen.bodies) < 25


def test_a_wait_of_hours_stops_the_job(tmp_path: Path) -> None:
    reply = Reply(status=429, raw=b"", headers={"Retry-After": "7200"})
    with (
        serving(lambda *_: reply) as server,
        AnswerCache(tmp_path / "c") as cache,
        pytest.raises(EndpointError, match="7200"),
    ):
        job(server, cache, items(3)).run()


def test_what_the_endpoint_asks_to_wait_is_waited(tmp_path: Path) -> None:
    came: list[float] = []

    def script(body: dict[str, Any], _: int) -> Reply:
        came.append(time.monotonic())
        return Reply(status=429, raw=b"", headers={"Retry-After": "0.4"}) if len(came) == 1 else right(body)

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, items(2), limits=Limits(1, 20, 2, first_wait_s=0.001)).run()
    assert len(outcome.accepted) == 2
    assert came[1] - came[0] >= 0.4  # a lower bound: a busy machine only waits longer


def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-secret-0123456789"
    echo = Reply(status=400, raw=json.dumps({"error": {"message": f"bad header Bearer {key}"}}).encode())

    def script(body: dict[str, Any], _: int) -> Reply:
        return echo if "caso 1." in user_text(body) else right(body)

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        to = endpoint(server.url, key)
        work = LanguageJob("translate", items(3), to, Sampling(model="m"), cache, limits=FAST)
        outcome = work.run()
        assert {headers["authorization"] for headers in server.seen.headers} == {f"Bearer {key}"}
    assert key not in repr(to) + repr(outcome) + (tmp_path / "c").read_text()
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InputError, match="environment variable"):
        key_from("NO_SUCH_KEY")


def test_no_more_requests_at_a_time_than_allowed(tmp_path: Path) -> None:
    with serving(right) as server, AnswerCache(tmp_path / "c") as cache:
        job(server, cache, items(40), limits=Limits(3, 20, 1)).run()
        assert 1 <= server.seen.most_at_once <= 3


def test_usage_that_the_endpoint_does_not_count_is_estimated(tmp_path: Path) -> None:
    def script(body: dict[str, Any], _: int) -> Reply:
        reply = right(body)
        reply.usage = False
        return reply

    with serving(script) as server, AnswerCache(tmp_path / "c") as cache:
        outcome = job(server, cache, items(1)).run()
    assert outcome.tokens_in > 200
    assert outcome.tokens_out > 5


def faulty(body: dict[str, Any], number: int) -> Reply:
    """Half of all requests go wrong in one of ten ways, as a hash of the request says; none more than three times."""
    digest = hashlib.sha256(json.dumps([body, number], sort_keys=True).encode()).digest()
    ways = [
        Reply(status=500, raw=b"oops"),
        Reply(status=429, raw=b"{}", headers={"Retry-After": "0.01"}),
        Reply(close=True),
        Reply(told("There is a pleural effusion."), cut=5),
        Reply(raw=b"<html>"),
        Reply("nonsense"),
        Reply(told("No se observa derrame pleural en el torax.")),
        Reply(told("The heart is"), finish="length"),
        Reply(told("There is no pleural effusion and no cardiomegaly. There is a pneumothorax.")),
        Reply(stall=True),
    ]
    if number >= 3 or digest[0] >= 128 or body.get("seed", 0) >= 3:
        return right(body)
    way = ways[digest[1] % 10]
    return way if not way.stall or digest[2] < 13 else ways[0]


def labelled(count: int) -> list[Item]:
    labels = {"derrame": ("Effusion", P), "cardiomegalia": ("Cardiomegaly", P), "sin neumotorax": ("Pneumothorax", A)}
    return [Item(i.id, i.dataset, i.text, (labels[i.text.split(". ")[1]],)) for i in items(count)]


def test_a_thousand_items_through_every_fault_lose_nothing_and_pay_for_nothing_twice(tmp_path: Path) -> None:
    work = labelled(1000)
    limits = Limits(concurrency=24, timeout_s=2.5, retries=6, first_wait_s=0.005)
    with serving(faulty) as server:
        with AnswerCache(tmp_path / "c") as cache:
            outcome = job(server, cache, work, limits=limits, sampling={"tries": 4}).run()
        sent = len(server.seen.bodies)
        twice = sum(count - 1 for count in server.seen.delivered.values())
        # On a machine that is held up a good answer may come too late; it is the only one that may be asked for again.
        late = outcome.problems["no answer in time"] - server.seen.stalls
        assert twice <= late, "an answer was asked for again"
        assert server.seen.stalls > 0
        with AnswerCache(tmp_path / "c") as cache:
            again = job(server, cache, work, limits=limits, sampling={"tries": 4}).run()
        assert len(server.seen.bodies) == sent > 1500
    assert [one.id for one in outcome.accepted] == [item.id for item in work]
    assert [one.text for one in outcome.accepted] == [english(item.text) for item in work]
    assert again.accepted == outcome.accepted
    assert len(outcome.problems) >= 6
