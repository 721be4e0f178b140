"""Mode `origin` as a whole against a slow, literal reading of RFC 9111 §3, §4 and §4.4: any conversation, step by step.

The model keeps plain facts and goes through the prose in its order; the cache is the real pipeline with a real store.
They must agree on every answer: where it came from, and which one it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dates import format_date
from gateway.core.forwarding import TrustedProxies
from gateway.core.model import Fields, RequestHead, ResponseHead
from gateway.core.target import parse
from gateway.pipeline.decide import Policy
from gateway.pipeline.exchange import Exchange
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.outgoing import Outgoing
from gateway.store.memory import MemoryStore
from tests.pipeline.test_origin_fetch import TABLE, Verifier, content

SECONDS = st.none() | st.integers(0, 20)
ANSWERS = st.fixed_dictionaries(
    {
        "max-age": SECONDS,
        "stale-while-revalidate": st.none() | st.integers(1, 20),
        "flags": st.sets(st.sampled_from(["no-store", "private", "no-cache", "must-revalidate", "public"]), max_size=1),
        "vary": st.sampled_from(["", "", "foo", "*"]),
        "etag": st.booleans(),
    }
)
GETS = st.fixed_dictionaries(
    {
        "method": st.just("GET"),
        "wait": st.integers(0, 12),
        "foo": st.sampled_from([None, "1", "2"]),
        "flags": st.sets(st.sampled_from(["no-cache", "no-store", "only-if-cached"]), max_size=1),
        "max-age": st.none() | st.integers(0, 20),
        "min-fresh": st.none() | st.integers(0, 10),
        "max-stale": st.none() | st.integers(0, 20),
        "answer": ANSWERS,
    }
)
WRITES = st.fixed_dictionaries(
    {"method": st.just("POST"), "wait": st.integers(0, 12), "status": st.sampled_from([200, 404, 500])}
)


@dataclass
class Facts:
    """A stored response, in the model's words."""

    number: int
    made: float
    foo: str | None
    answer: dict[str, Any]


@dataclass
class Model:
    """What RFC 9111 says, sentence by sentence, for one target in a shared cache without tokens."""

    now: float = 0.0
    stored: list[Facts] = field(default_factory=list)

    def presented(self, foo: str | None) -> Facts | None:
        """§4.1: the stored responses whose nominated fields match; of several the most recent."""
        found = [one for one in self.stored if one.answer["vary"] == "" or one.foo == foo]
        return max(found, key=lambda one: one.made, default=None)

    def judge(self, asked: dict[str, Any]) -> tuple[str, Facts | None]:
        """§4: "served", "behind" (served, and refreshed behind it), "asked" or "504"; and the response selected."""
        chosen = self.presented(asked["foo"])
        verdict = "asked" if chosen is None else self._by_freshness(chosen, asked)
        if verdict == "asked" and "only-if-cached" in asked["flags"]:  # §5.2.1.7
            return "504", chosen
        return verdict, chosen

    def _by_freshness(self, chosen: Facts, asked: dict[str, Any]) -> str:
        life, age, flags = chosen.answer["max-age"] or 0, self.now - chosen.made, chosen.answer["flags"]
        if "no-store" in asked["flags"]:  # §5.2.1.5 says nothing of reuse; this cache asks
            return "asked"
        if "no-cache" in asked["flags"] or "no-cache" in flags:  # §5.2.1.4, §5.2.2.4
            return "asked"
        if asked["max-age"] is not None and (asked["max-age"] == 0 or age > asked["max-age"]):  # §5.2.1.1
            return "asked"
        if asked["min-fresh"] is not None and life - age < asked["min-fresh"]:  # §5.2.1.3
            return "asked"
        if life > age:  # §4.2
            return "served"
        if "must-revalidate" in flags:  # §5.2.2.2
            return "asked"
        window = chosen.answer["stale-while-revalidate"]
        if window is not None and age - life < window and asked["max-age"] is None:  # RFC 5861 §3
            return "behind"
        if asked["max-stale"] is not None and age - life <= asked["max-stale"]:  # §5.2.1.2
            return "served"
        return "asked"

    def answered(self, number: int, foo: str | None, answer: dict[str, Any], *, no_store: bool) -> None:
        """§3: a 200 to GET came from the origin."""
        chosen = self.presented(foo)
        if no_store or not self._storable(answer):
            if chosen is not None:  # §4.3.3: it is not what the origin says any more
                self.stored.remove(chosen)
            return
        self.stored = [one for one in self.stored if not (one.answer["vary"] == "" or one.foo == foo)]
        self.stored.append(Facts(number, self.now, foo, answer))

    @staticmethod
    def _storable(answer: dict[str, Any]) -> bool:
        if answer["flags"] & {"no-store", "private"} or answer["vary"] == "*":
            return False
        # What could never be used again is not kept, though §3 would allow it.
        if answer["etag"]:
            return True
        if "no-cache" in answer["flags"]:
            return False
        stale = answer["stale-while-revalidate"] is not None and "must-revalidate" not in answer["flags"]
        return (answer["max-age"] or 0) > 0 or stale


class Answer:
    """A response whose content is at hand."""

    def __init__(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.head = ResponseHead(status, Fields(fields))
        self._body = body

    def in_hand(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def release(self) -> None:
        pass


class Cache:
    """The real thing, and an origin that numbers its answers."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.answer: dict[str, Any] = {}
        self.status = 200
        self.asked: list[RequestHead] = []
        self.pipeline = Pipeline(
            policy=Policy(TABLE, Verifier(), MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 16)),
            upstream=self,
            links=None,
            outgoing=Outgoing("gateway", "origin.example.org", TrustedProxies(), "https", "outside.example.org"),
            clock=lambda: self.now,
            max_rewrite_bytes=1 << 20,
            max_entry_bytes=1 << 16,
        )

    async def send(self, head: RequestHead, _body: AsyncIterator[bytes] | None) -> Answer:
        self.asked.append(head)
        if head.method != "GET":
            return Answer(self.status, [], b"")
        words = [
            f"{name}={self.answer[name]}"
            for name in ("max-age", "stale-while-revalidate")
            if self.answer[name] is not None
        ]
        fields = [
            ("Date", format_date(self.now)),
            ("Cache-Control", ", ".join([*words, *sorted(self.answer["flags"])])),
        ]
        fields += [("Vary", self.answer["vary"])] if self.answer["vary"] else []
        fields += [("ETag", f'"{len(self.asked)}"')] if self.answer["etag"] else []
        return Answer(200, fields, b"%d" % len(self.asked))

    async def ask(self, step: dict[str, Any]) -> tuple[int, bytes]:
        words = [f"{name}={step[name]}" for name in ("max-age", "min-fresh", "max-stale") if step.get(name) is not None]
        words += sorted(step.get("flags", ()))
        fields = [("Host", "outside.example.org")]
        fields += [("Cache-Control", ", ".join(words))] if words else []
        fields += [("Foo", step["foo"])] if step.get("foo") is not None else []
        head = RequestHead(step["method"], parse("/page", strict_api=False), Fields(fields))
        reply = await self.pipeline.answer(Exchange(head, request_id="r", received_at=self.now), None)
        body = await content(reply)
        await self.pipeline.drain()
        return reply.status, body


async def compared(steps: list[dict[str, Any]]) -> None:
    cache, model = Cache(), Model()
    for step in steps:
        cache.now += step["wait"]
        model.now += step["wait"]
        before = len(cache.asked)
        if step["method"] == "POST":
            cache.status = step["status"]
            assert (await cache.ask(step))[0] == step["status"]
            if step["status"] < 400:  # §4.4
                model.stored.clear()
            continue
        verdict, chosen = model.judge(step)
        cache.answer = step["answer"]
        status, body = await cache.ask(step)
        came = len(cache.asked) - before
        no_store = "no-store" in step["flags"]
        match verdict:
            case "504":
                assert (status, came) == (504, 0)
            case "asked":
                assert (status, body, came) == (200, b"%d" % len(cache.asked), 1)
                model.answered(len(cache.asked), step["foo"], step["answer"], no_store=no_store)
            case _:
                assert chosen is not None
                assert (status, body) == (200, b"%d" % chosen.number)
                assert came == (verdict == "behind")
                if verdict == "behind":
                    model.answered(len(cache.asked), step["foo"], step["answer"], no_store=False)


@given(st.lists(GETS | GETS | GETS | WRITES, max_size=10))
@settings(max_examples=300, deadline=None)
def test_equals_a_literal_reading(steps: list[dict[str, Any]]) -> None:
    asyncio.run(compared(steps))
