"""Commands to the shared store, each within a deadline, none while it is known to be gone.

A circuit breaker: the first command that times out or finds no server opens it, so whoever comes next does not wait.
Then this module alone asks, behind everybody's back, and closes it when the store takes a write again. One log line for
each change. Nobody's command is ever tried twice by itself.

A deadline that passes while this process was busy elsewhere is not held against the store: what has arrived by then
counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gateway.shared import clients
from gateway.shared.options import Fault, SharedStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.shared.clients import Client, Listener
    from gateway.shared.options import Options

# After these the store is asked no more until a probe has succeeded; the others are about one command.
_OPENING: Final = frozenset({Fault.TIMEOUT, Fault.UNREACHABLE, Fault.READ_ONLY, Fault.DENIED})
# Rounds of the event loop that an answer needs from the socket to whoever waits for it.
_ROUNDS: Final = 3


class Script:
    """A Lua script: runs on the server as one step, is sent once and then named by its hash.

    Args:
        source: with a shebang, so that its flags count (Valkey 7.2, Redis 7).
    """

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source: Final = source
        self.sha: Final = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


_PROBE: Final = Script("""#!lua flags=allow-oom
redis.call('SET', KEYS[1], '1', 'PX', 10000)
return 'ok'
""")


class Link:
    """The way to the shared store.

    Args:
        options: how to reach it.
        probe_key: a key that may be written to find out whether it takes writes.
        changed: told of each change of state, with the fault that led to it, None when the store is back.

    Attributes:
        calls: commands by how they ended: "ok" or the fault.
        seconds: how long commands took together, as far as they were answered.
        opened: how often the breaker opened.
    """

    def __init__(
        self, options: Options, *, probe_key: str, changed: Callable[[Fault | None], None] = lambda _: None
    ) -> None:
        self.options: Final = options
        self._probe_key: Final = probe_key
        self._changed: Final = changed
        self._client: Client = clients.client(options)
        self._slots: Final = asyncio.Semaphore(options.connections)
        self._fault: Fault | None = Fault.UNREACHABLE
        self._told: tuple[Fault | None, ...] = ()
        self._probing: asyncio.Task[None] | None = None
        self._closing: Final[set[asyncio.Task[None]]] = set()
        self.up: Final = asyncio.Event()
        self.calls: Final[dict[str, int]] = dict.fromkeys(("ok", *(fault.value for fault in Fault)), 0)
        self.seconds = 0.0
        self.opened = 0

    @property
    def fault(self) -> Fault | None:
        """Why the store is not asked; None while it is."""
        return self._fault

    async def start(self) -> None:
        """Connect, within the time for connecting; without success it goes on behind."""
        await self._probe()
        if self._fault is not None:
            self._tell(self._fault)
            self._probe_behind()

    async def stop(self) -> None:
        """Close everything."""
        self._fault = self._fault or Fault.OPEN
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing
            self._probing = None
        await asyncio.gather(*self._closing, return_exceptions=True)
        with suppress(*clients.ERRORS):
            await self._client.close()

    async def run(self, script: Script, keys: list[str], *arguments: Any, patience: float | None = None) -> Any:
        """Run a script.

        Args:
            script: what to run.
            keys: all of one slot.
            arguments: for it.
            patience: seconds; by default `max_added_latency`.

        Raises:
            SharedStoreError: no answer, or an error.
        """
        return await self._guarded(lambda: self._script(script, keys, arguments), patience)

    async def call(self, *parts: Any, patience: float | None = None) -> Any:
        """Send one command; otherwise like `run`."""
        return await self._guarded(lambda: self._client.command(*parts), patience)

    async def listener(self, key: str) -> Listener:
        """A connection of its own to the server that has `key`; the caller closes it.

        Raises:
            SharedStoreError: there is none.
        """
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                return await self._client.listener(key)
        except TimeoutError:
            raise SharedStoreError(Fault.TIMEOUT) from None
        except clients.ERRORS as error:
            raise SharedStoreError(clients.fault_of(error), str(error)) from None

    async def _script(self, script: Script, keys: list[str], arguments: tuple[Any, ...]) -> Any:
        client = self._client
        try:
            return await client.command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except clients.ERRORS as error:
            if "NOSCRIPT" not in str(error) and type(error).__name__ != "NoScriptError":
                raise
        return await client.command("EVAL", script.source, len(keys), *keys, *arguments)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, Any]], patience: float | None) -> Any:
        if self._fault is not None:
            self.calls[Fault.OPEN.value] += 1
            raise SharedStoreError(Fault.OPEN, self._fault.value)
        loop = asyncio.get_running_loop()
        started = loop.time()
        task = asyncio.ensure_future(self._in_turn(work))
        try:
            await _wait(task, self.options.max_added_latency if patience is None else patience)
        finally:
            if not task.done():
                task.cancel()  # which closes its connection: the answer still to come is nobody's
                self._keep(task)
        if not task.done():
            raise self._failed(Fault.TIMEOUT, "")
        try:
            answer = task.result()
        except clients.ERRORS as error:
            raise self._failed(clients.fault_of(error), str(error)) from None
        self.calls["ok"] += 1
        self.seconds += loop.time() - started
        return answer

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with self._slots:
            return await work()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Wait for a cancelled command behind, so that its connection is closed and its error is nobody's."""

        async def settled() -> None:
            await asyncio.gather(task, return_exceptions=True)

        closing = asyncio.ensure_future(settled())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _failed(self, fault: Fault, detail: str) -> SharedStoreError:
        self.calls[fault.value] += 1
        if fault in _OPENING and self._fault is None:
            self._fault = fault
            self.opened += 1
            self.up.clear()
            self._tell(fault)
            self._probe_behind()
        return SharedStoreError(fault, detail)

    def _tell(self, fault: Fault | None) -> None:
        if self._told != (fault,):
            self._told = (fault,)
            self._changed(fault)

    def _probe_behind(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._probe_until_it_answers())

    async def _probe_until_it_answers(self) -> None:
        while self._fault is not None:
            await asyncio.sleep(self.options.retry_interval * random.uniform(0.1, 1.0))  # noqa: S311 - so that not all come at once
            await self._probe()

    async def _probe(self) -> None:
        """Half open: a client of its own connects and has a command answered, and another as fast as one has to be.

        Then it takes the place of the old one. A store that is slow stays away: else it would be found to be slow again
        by a request, and again.
        """
        fresh = clients.client(self.options)
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                await fresh.command("EVAL", _PROBE.source, 1, self._probe_key)
                again = asyncio.ensure_future(fresh.command("EVAL", _PROBE.source, 1, self._probe_key))
                try:
                    await _wait(again, self.options.max_added_latency)
                    if not again.done():
                        raise TimeoutError
                    again.result()
                finally:
                    if not again.done():
                        again.cancel()
                        await asyncio.gather(again, return_exceptions=True)
        except (TimeoutError, *clients.ERRORS) as error:
            self._fault = Fault.TIMEOUT if isinstance(error, TimeoutError) else clients.fault_of(error)
            with suppress(*clients.ERRORS):
                await fresh.close()
            return
        except BaseException:
            await fresh.close()
            raise
        old, self._client = self._client, fresh
        self._fault = None
        self.up.set()
        self._tell(None)
        with suppress(*clients.ERRORS):
            await old.close()


async def _wait(task: asyncio.Task[Any], seconds: float) -> None:
    """Wait so long at most; and for what has arrived by then, while this process was busy."""
    await asyncio.wait({task}, timeout=seconds)
    for _ in range(_ROUNDS):
        if task.done():
            break
        await asyncio.sleep(0)
