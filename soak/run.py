"""`python soak/run.py --seconds N`: a gateway process before a sandbox, in a hard time.

Real clients read and write, the world is changed behind the gateway's back, the controller fails in every way it can,
keys rotate, the UAA is away, settings are reloaded, workers are killed. Then: had the gateway a right to each answer
(`tests/truth.py`); did memory and descriptors stay flat; is each 5xx explained by an injected fault? Ends with 1 when
not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import aiohttp

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from changes import JOBS, Changes  # noqa: E402
from cloudfoundry_client.client import CloudFoundryClient  # noqa: E402
from place import ADVERTISED, Site, slope  # noqa: E402

from gateway.sandbox.faults import Break, Fault, Faults  # noqa: E402
from gateway.sandbox.people import person  # noqa: E402
from tests.shared.servers import Server, server  # noqa: E402
from tests.truth import Got, Pair, Told, Truth  # noqa: E402

WHO = ("admin", "global_auditor", "space_developer", "space_auditor", "org_manager", "no_roles")
TTL = 5.0  # of the built-in lists
LAG = 0.15  # the most that an answer is held back once it is made
SLACK = 1.0  # of a page's age: from the controller's look to its answer's arrival, on a machine that is busy
STALE_IF_ERROR = 60.0
GRACE = 4.0  # after a fault: retries, the breaker's pause, the next health check
CLIENTS = 6
UNNOTICED = 3  # a broken gateway that gave no wrong answer: the exit code
LISTS = ("/v3/processes", "/v3/apps", "/v3/spaces", "/v3/organizations")
FAULTS: dict[str, dict[str, object]] = {
    "answers 500": {"status": 500},
    "answers 503": {"status": 503},
    "slow": {"latency": 0.7},
    "closes before the head": {"broken": Break.CLOSE_BEFORE_HEAD},
    "stalls before the head": {"broken": Break.STALL_BEFORE_HEAD},
    "closes mid-body": {"broken": Break.CLOSE_MID_BODY, "after": 20},
    "resets mid-body": {"broken": Break.RESET_MID_BODY, "after": 20},
    "stalls mid-body": {"broken": Break.STALL_MID_BODY, "after": 20},
    "lies about its length": {"broken": Break.WRONG_LENGTH, "length_error": 7},
    "lies the other way": {"broken": Break.WRONG_LENGTH, "length_error": -7},
}


class Lagging(Faults):
    """Faults, and beside them: what the gateway asks for is often made a while before it is sent.

    So a fetch from before a write is still under way after it.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.still = False

    def take(self, method: str, target: str) -> Fault | None:
        fault = super().take(method, target)
        if fault is not None or self.still or method != "GET" or self._chance.random() < 0.5:
            return fault
        return Fault(lag=self._chance.random() * LAG)


class Soak:
    """One run.

    Args:
        site: everything, started.
        http: to ask with.
        seed: of all that is random.
        store: what the workers share, None for nothing.
    """

    def __init__(self, site: Site, http: aiohttp.ClientSession, seed: int, store: Server | None = None) -> None:
        self.site, self.http, self.store = site, http, store
        self.random = random.Random(seed)
        self.truth = Truth()
        self.number = 0
        self.lagging = Lagging(random.Random(seed + 1))
        site.controller.faults = self.lagging
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.excused_until = 0.0
        self.tags: dict[str, bytes] = {}
        self.ends = self.lying = False
        app = next(app for app in site.controller.world.apps.values() if app.space.name == "dev")
        self.changes = Changes(site.controller.world, app, self.random)
        self.jobs: list[str] = []
        self.untold: list[int] = []  # changes that were the end of such jobs
        self.lost = False  # whether a job may have begun whose name nobody heard
        self.targets = [
            *("/v3/processes", "/v3/processes?per_page=2&page=2", "/v3/processes?types=web", "/v3/apps?per_page=100"),
            *("/v3/processes?order_by=-updated_at&per_page=3", "/v3/processes?label_selector=odd%3Dyes"),
            *("/v3/apps?include=space.organization", "/v3/apps?order_by=name&per_page=4", "/v3/spaces"),
            *("/v3/organizations", f"/v3/apps/{app.guid}/processes", f"/v3/processes/{app.guid}"),
        ]

    def token(self, who: str) -> dict[str, str]:
        """A new token."""
        return {"Authorization": f"bearer {self.site.uaa.mint(person(who))}"}

    # -- clients

    async def reader(self, number: int) -> None:
        """Reads whatever list as whoever, and has each answer judged."""
        chance = random.Random(number)
        tokens, renewed = {who: self.token(who) for who in WHO}, time.monotonic()
        while not self.ends:
            if time.monotonic() - renewed > 3 and not self.site.uaa.down:
                tokens, renewed = {who: self.token(who) for who in WHO}, time.monotonic()
            who, target = chance.choice(WHO), chance.choice(self.targets)
            headers = dict(tokens[who])
            if chance.random() < 0.3 and self.tags:
                headers["If-None-Match"] = chance.choice(list(self.tags))
            if chance.random() < 0.2:
                headers["Accept"] = "application/json"
            if chance.random() < 0.05:
                await self.leave(target, headers, chance.random() * 0.02)
                continue
            await self.ask(who, target, headers)
            await asyncio.sleep(chance.random() * 0.04)

    async def ask(self, who: str, target: str, headers: dict[str, str]) -> None:
        pair, asked, delivered = (who, target), time.monotonic(), self.truth.delivered
        try:
            async with self.http.get(f"{self.site.url}{target}", headers=headers) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failed(f"{target}: {type(error).__name__}: {error}", asked)
            return
        came, note = time.monotonic(), response.headers.get("Cache-Status", "")
        self.statuses[response.status] += 1
        self.counts["hits"] += ";hit" in note
        if response.status >= 500:
            self.failed(f"{target}: {response.status} {note} {body[:120]!r}", asked)
            return
        if response.status == 304:
            body = self.tags[headers["If-None-Match"]]
        elif response.status == 200 and (tag := response.headers.get("ETag")):
            self.tags[tag] = body
        told = (200 if response.status == 304 else response.status), body.replace(self.public, ADVERTISED.encode())
        if self.lying and ";hit" not in note and not is_json(told[1]):
            # The controller itself said that this was all of it, and nothing else tells; kept it must not be.
            self.counts["cut by the controller's own word"] += 1
            return
        stale = "stale-if-error" in note
        self.counts["stale"] += stale
        cached = not target.startswith("/v3/processes/")
        allowed = ((STALE_IF_ERROR if stale else 0.0) + TTL + LAG + SLACK) if cached else 0.0
        self.truth.got(Got(pair, told, asked, came, allowed, delivered, note))

    @property
    def public(self) -> bytes:
        """The URL that the gateway puts into links."""
        return self.site.url.encode()

    async def leave(self, target: str, headers: dict[str, str], after: float) -> None:
        """Ask, and hang up before the answer is there."""
        self.counts["left"] += 1
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(after), self.http.get(f"{self.site.url}{target}", headers=headers) as response:
                await response.content.read(10)

    def failed(self, what: str, asked: float) -> None:
        """A request without an answer that counts."""
        if asked <= self.excused_until or time.monotonic() <= self.excused_until:
            self.counts["failed while a fault was on"] += 1
        else:
            self.unexplained.append(what)

    def library(self) -> None:
        """cloudfoundry-client, as tools use it: log in, walk the pages, log in again."""
        while not self.ends:
            began = time.monotonic()
            try:
                client = CloudFoundryClient(self.site.url)
                client.init_with_user_credentials("admin", "admin")
                for _ in range(5):
                    rows = [row["guid"] for row in client.v3.processes.list(per_page=7)]
                    self.counts["walks by cloudfoundry-client"] += 1
                    if len(set(rows)) != len(rows):
                        self.counts["walks that saw a row twice"] += 1
                    time.sleep(0.2)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is either explained or reported
                if not self.ends:
                    self.failed(f"cloudfoundry-client: {type(error).__name__}: {error}"[:300], began)
                time.sleep(0.2)

    # -- changes

    async def directly(self, who: str, target: str) -> Told:
        async with self.http.get(f"{self.site.direct}{target}", headers=self.token(who)) as response:
            return response.status, await response.read()

    async def observe(self, began: float, done: float | None = None, *, through: bool) -> None:
        """See what is true right now: ask the controller itself, for everybody.

        Args:
            began: before the change that made it so began.
            done: after it was complete; None where that is not known before everything was seen.
            through: whether it went through the gateway and was told complete.
        """
        pairs: list[Pair] = [(who, target) for who in WHO for target in self.targets]
        self.lagging.still = True
        answers = dict(zip(pairs, await asyncio.gather(*(self.directly(*pair) for pair in pairs)), strict=True))
        whole = [(await self.directly("admin", f"{path}?per_page=5000"))[1] for path in LISTS]
        self.lagging.still = False
        done = done or time.monotonic()
        self.truth.changed(self.number, answers, whole, began=began, done=done, through=through)
        self.truth.judge()

    async def change(self) -> None:
        """Change something, through the gateway or past it."""
        self.number += 1
        began, through = time.monotonic(), self.random.random() < 0.6
        method, path, body = change = self.changes.next(self.number)
        done: float | None
        if change == JOBS:
            self.site.controller.complete_jobs()
            done = time.monotonic()
            self.untold.append(self.number)
            through = through and await self.poll(began)
        else:
            status = await self.write(method, path, body, began, through=through)
            done = time.monotonic() if 200 <= status < 500 else None
            self.lost = self.lost or (done is None and method == "DELETE")
            through = through and 200 <= status < 300
        if through:
            self.truth.delivered = self.number
        self.counts["changes through the gateway" if through else "changes past it"] += 1
        await self.observe(began, done, through=through)

    async def poll(self, began: float) -> bool:
        """Ask the gateway for every job, as those do who began them; whether it told that all are over.

        What jobs did that were over earlier, and of which nobody asked, is told with this change.
        """
        jobs, self.jobs = self.jobs, []
        ends, self.untold = self.untold, []
        lost, self.lost = self.lost, False
        for job in jobs:
            status, _, answer = await self.request(self.site.url, "GET", job, None, began)
            if status != 200 or json.loads(answer)["state"] != "COMPLETE":
                return False
        self.counts["jobs polled"] += len(jobs)
        if lost:
            return False
        self.counts["ends of jobs told later"] += len(ends) - 1
        self.truth.told(ends, self.number)
        return True

    async def write(self, method: str, path: str, body: object, began: float, *, through: bool) -> int:
        """Write; returns the status, 0 when there was no answer."""
        base = self.site.url if through else self.site.direct
        status, location, answer = await self.request(base, method, path, body, began)
        if status == 201 and path == "/v3/apps":
            self.changes.created.append(json.loads(answer)["guid"])
        if status == 202 and location is not None:
            self.jobs.append(location[location.index("/v3/jobs/") :])
        return status

    async def request(
        self, base: str, method: str, path: str, body: object, began: float
    ) -> tuple[int, str | None, bytes]:
        try:
            async with self.http.request(method, f"{base}{path}", headers=self.token("admin"), json=body) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failed(f"{method} {path}: {type(error).__name__}: {error}", began)
            return 0, None, b""
        if response.status >= 500:
            self.failed(f"{method} {path}: {response.status}", began)
        return response.status, response.headers.get("Location"), answer

    # -- troubles

    def next_trouble(self) -> str:
        """What goes wrong next."""
        if self.store is not None and self.random.random() < 0.25:
            return self.random.choice(["worker killed", "store away"])
        return self.random.choice([*FAULTS, "reload", "reload", "faulty reload", "rotation", "rotation", "uaa"])

    async def trouble(self, name: str) -> None:
        """One thing that goes wrong, for a while."""
        if name in FAULTS:
            self.excused_until = time.monotonic() + 60
            self.lying = FAULTS[name].get("length_error", 0) == -7
            self.site.controller.faults.add(Fault(**FAULTS[name]))  # type: ignore[arg-type]
            await asyncio.sleep(self.random.uniform(1.0, 2.5))
            self.site.controller.faults.clear()
            await asyncio.sleep(0.3)  # for answers under way
            self.lying = False
            self.excused_until = time.monotonic() + GRACE
        elif name == "uaa":
            self.excused_until = time.monotonic() + 60  # cloudfoundry-client cannot log in
            self.site.uaa.down = True
            await asyncio.sleep(2.0)
            self.site.uaa.down = False
            self.excused_until = time.monotonic() + 1.0
        elif name == "rotation":
            self.site.uaa.retire_old()
            self.site.uaa.rotate()
            await asyncio.sleep(11)  # the cool-down of fetches for unknown keys
        elif name == "worker killed":
            self.excused_until = time.monotonic() + GRACE  # its own requests are lost
            self.random.choice(self.site.workers()).kill()
        elif name == "store away" and self.store is not None:
            self.store.kill()
            await asyncio.sleep(self.random.uniform(0.5, 3.0))
            await self.store.start()
        else:
            faulty = name == "faulty reload"
            self.site.write_settings(level=self.random.choice(["warning", "error"]), faulty=faulty)
            self.site.reload()
            await asyncio.sleep(0.5)
            if faulty:
                self.site.write_settings()
        self.injected[name] += 1

    async def watch(self, seconds: float) -> None:
        """Reads and changes alone, at most so long: until an answer is wrong."""
        await self.observe(time.monotonic(), through=False)
        readers = [asyncio.create_task(self.reader(number)) for number in range(CLIENTS)]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self.truth.wrong:
            await self.change()
            await asyncio.sleep(self.random.uniform(0.0, 0.1))
        self.ends = True
        await asyncio.gather(*readers)

    async def run(self, seconds: float) -> None:
        """Everything at once for so long."""
        await self.observe(time.monotonic(), through=False)
        readers = [asyncio.create_task(self.reader(number)) for number in range(CLIENTS)]
        library = threading.Thread(target=self.library, daemon=True)
        library.start()
        ends = time.monotonic() + seconds
        next_trouble, name = time.monotonic() + 5, ""
        trouble: asyncio.Task[None] | None = None
        try:
            while time.monotonic() < ends:
                await self.change()
                self.site.sample()
                await asyncio.sleep(self.random.uniform(0.05, 0.4))
                if trouble is None and time.monotonic() > next_trouble:
                    name = self.next_trouble()
                    trouble = asyncio.create_task(self.trouble(name))
                # While the controller fails it is not to be asked for the truth, so nothing may change.
                if trouble is not None and (name in FAULTS or trouble.done()):
                    await trouble
                    trouble, next_trouble = None, time.monotonic() + self.random.uniform(2, 6)
        finally:
            self.ends = True
            if trouble is not None:
                await trouble
            await asyncio.gather(*readers)
            await asyncio.to_thread(library.join, 10)
        self.truth.judge()


def is_json(body: bytes) -> bool:
    """Whether this is a whole JSON document."""
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def report(soak: Soak, seconds: float, code: int, seed: int) -> bool:
    """Print what happened; whether all was well."""
    held = soak.site.samples.values()
    # A process fills its stores and tables, all of them bounded, for about three minutes of this.
    warm = [[each for each in one if each[0] > one[0][0] + min(180, seconds / 2)] for one in held]
    memory = slope([[(at, taken) for at, taken, _ in one] for one in warm])
    descriptors = slope([[(at, float(count)) for at, _, count in one] for one in warm])
    limit = max(1.0, 600 / max(seconds, 1))  # MiB a minute; short runs measure the warming up
    checks = {
        "wrong answers": not soak.truth.wrong,
        "unexplained failures": not soak.unexplained,
        "memory": memory < limit,
        "descriptors": descriptors < max(2.0, 60 / max(seconds, 1) * 20),
        "exit code": code == 0,
        "something was judged": soak.truth.judged > seconds,
    }
    print(f"soak: {seconds:.0f} s, seed {seed}")
    print(
        f"  requests {sum(soak.statuses.values())} by status {dict(sorted(soak.statuses.items()))}, {dict(soak.counts)}"
    )
    print(f"  changes {soak.number}; troubles {sum(soak.injected.values())}: {dict(soak.injected)}")
    truth = soak.truth
    print(f"  answers judged {truth.judged}, wrong {len(truth.wrong)}; the most out of date by {truth.oldest:.2f} s")
    print(f"  failures not explained by a fault: {len(soak.unexplained)}")
    print(f"  memory of each process {memory:+.2f} MiB/min (limit {limit:.1f}), descriptors {descriptors:+.2f}/min")
    for pid, one in soak.site.samples.items():
        said = f"{one[0][1]:.1f} -> {one[-1][1]:.1f} MiB, {one[0][2]} -> {one[-1][2]} descriptors"
        print(f"    {pid}: {one[-1][0] - one[0][0]:.0f} s, {said}")
    print(f"  exit code {code}")
    for line in (*soak.truth.wrong[:10], *soak.unexplained[:10]):
        print(f"    {line}")
    for name, passed in checks.items():
        print(f"  {'ok  ' if passed else 'FAIL'} {name}")
    return all(checks.values())


async def main() -> int:
    logging.getLogger("oauth2_client").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # the sandbox's: clients that hang up are the plan
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--workers", type=int, default=2, help="more than one share a Valkey server")
    parser.add_argument(
        "--no-store", action="store_true", help="they share nothing but what their supervisor tells them"
    )
    parser.add_argument("--mutant", help="break the gateway in a way that soak/mutants names; ends well when noticed")
    given = parser.parse_args()
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        store, more = None, ""
        if given.workers > 1 and given.no_store:
            more = f"workers: {given.workers}"
        elif given.workers > 1:
            store = await stack.enter_async_context(server())
            shared = f"{{url: '{store.url}', hmac_key: {'k' * 32}}}"
            more = f"workers: {given.workers}\nshared_store: {shared}"
        site = Site(Path(folder), more, given.mutant)
        await site.start()
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
            soak = Soak(site, http, given.seed, store)
            try:
                await (soak.watch if given.mutant else soak.run)(given.seconds)
            finally:
                code = await site.stop()
        if given.mutant:
            print(*soak.truth.wrong[:3], f"{soak.truth.judged} judged, {soak.number} changes", sep="\n")
            return 0 if soak.truth.wrong else UNNOTICED
        well = report(soak, given.seconds, code, given.seed)
        if not well:
            print("\n".join(site.log().splitlines()[-20:]))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
