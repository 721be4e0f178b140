"""The origins that the controller prints in its links: configured, or learnt from its `GET /` and kept current.

The controller writes links from its own configuration only (controller.md §1), so the origin to look for is usually not
the address the gateway connects to. Until one is known no answer with links may pass: an unrewritten `next.href` leads
clients around the gateway.

Several processes may tell each other what they learnt (`Noticeboard`); who takes another's notice looks again as soon
as if it had looked itself when the other did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core.links import Rewriter
from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.pipeline.ports import Noticeboard, Upstream, UpstreamResponse

_KIND: Final = "origin"
_LIMIT: Final = 1024 * 1024
_RETRY: Final = 5.0
_TOLD: Final = msgspec.json.Decoder(tuple[str, ...])


class Origins:
    """Keeps a rewriter for the origins the controller advertises.

    Args:
        public_url: where links are to point.
        configured: origins from the settings; when given, nothing is learnt.
        upstream: the controller.
        fields: what to send with `GET /`, Host included.
        interval: seconds between two looks.
        patience: seconds to wait for an answer.
        board: where processes tell each other what they learnt.
        controllers: what tells these controllers from others there.
    """

    def __init__(
        self,
        *,
        public_url: str,
        configured: Iterable[str],
        upstream: Upstream,
        fields: Fields,
        interval: float = 60.0,
        patience: float = 5.0,
        board: Noticeboard | None = None,
        controllers: Sequence[str] = (),
    ) -> None:
        self._public_url = public_url
        self._configured = tuple(configured)
        self._upstream: Final = upstream
        self._head: Final = RequestHead("GET", Target("/"), fields)
        self._interval: Final = interval
        self._patience: Final = patience
        self._board: Final = board
        self._subject: Final = json.dumps([controllers, fields.get("Host")]).encode()
        self._learnt_at = 0.0
        self._lead = 0.0
        self._task: asyncio.Task[None] | None = None
        self._learning: asyncio.Task[None] | None = None
        self.known: tuple[str, ...] = ()
        self.fault: str | None = "the controller's advertised origin is not known yet"
        self._rewriter: Rewriter | None = None
        if self._configured:
            self._adopt(self._configured)

    def reconfigure(self, *, public_url: str, configured: Iterable[str]) -> None:
        """Rewrite by other settings from now on. What was learnt is kept until there is something newer.

        Args:
            public_url: where links are to point.
            configured: origins from the settings; when given, nothing is learnt.
        """
        self._public_url, self._configured = public_url, tuple(configured)
        known = self._configured or self.known
        self.known = ()
        if known:
            self._adopt(known)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if not self._configured:
            self._task = asyncio.create_task(self._keep_current(at_once=True))

    async def start(self) -> None:
        """Learn once, then keep learning behind; a failure is not fatal, `fault` says what it was."""
        if self._configured:
            return
        with contextlib.suppress(UpstreamError):
            await self.learn()
        self._task = asyncio.create_task(self._keep_current())

    async def stop(self) -> None:
        """Stop looking."""
        tasks = [task for task in (self._task, self._learning) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def rewriter(self) -> Rewriter:
        """The rewriter for the origins known now; learns them first when there are none.

        Raises:
            UpstreamError: they are not known and could not be learnt.
        """
        if self._rewriter is None:
            await self.learn()
        assert self._rewriter is not None  # noqa: S101 - learn() adopts one or raises
        return self._rewriter

    async def learn(self) -> None:
        """Ask the controller's root for the origin of its API links, or join who is asking already.

        Raises:
            UpstreamError: it did not answer in time, or not with a root document.
        """
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._ask())
            self._learning.add_done_callback(_retrieve)
        await asyncio.shield(self._learning)

    async def _ask(self) -> None:
        board = self._board
        if board is None:
            await self._ask_controller()
            return
        after = self._learnt_at if self.fault is None else 0.0
        found = await board.find(_KIND, self._subject, after=after, max_age=self._interval)
        if found is not None and self._told(found.content):
            self._learnt_at, self._lead = found.learnt_at, found.age
            return
        try:
            await self._ask_controller()
        finally:
            board.release(_KIND, self._subject)

    def _told(self, content: bytes) -> bool:
        """Whether another process's notice was of use."""
        try:
            origins = _TOLD.decode(content)
            if not origins:
                return False
            self._adopt(self._configured or origins)
        except (msgspec.DecodeError, UnicodeDecodeError, UpstreamError):
            return False
        return True

    async def _ask_controller(self) -> None:
        begun_at = time.time()
        try:
            async with asyncio.timeout(self._patience):
                response = await self._upstream.send(self._head, None)
                body = await _read(response)
            found = advertised(response.head.status, body)
            self._adopt(self._configured or found)
            self._learnt_at, self._lead = begun_at, 0.0
            if self._board is not None:
                content = msgspec.json.encode(found)
                self._board.offer(_KIND, self._subject, content, learnt_at=begun_at, max_age=self._interval)
        except TimeoutError:
            fault = UpstreamError("timeout", f"GET / was not answered within {self._patience:g} s")
            self.fault = f"the controller's root could not be read: {fault.detail}"
            raise fault from None
        except UpstreamError as error:
            self.fault = f"the controller's root could not be read: {error.detail}"
            raise

    def _adopt(self, origins: tuple[str, ...]) -> None:
        if origins != self.known:
            try:
                self._rewriter = Rewriter(origins, self._public_url)
            except ValueError as error:
                raise UpstreamError("broken", "GET / names an origin that is no URL") from error
            self.known = origins
        self.fault = None

    async def _keep_current(self, *, at_once: bool = False) -> None:
        while True:
            if not at_once:
                await asyncio.sleep(_RETRY if self.fault is not None else max(0.0, self._interval - self._lead))
            at_once = False
            with contextlib.suppress(UpstreamError):
                await self.learn()


def advertised(status: int, root: bytes) -> tuple[str, ...]:
    """The API origins in a root document: where `self` and `cloud_controller_v3` point, less `/v3`.

    Args:
        status: status of the answer to `GET /`.
        root: its body.

    Raises:
        UpstreamError: there is none in it.
    """
    if status != 200:
        raise UpstreamError("broken", f"GET / answered {status}")
    origins: dict[str, None] = {}
    try:
        links = json.loads(root)["links"]
        for name, suffix in (("self", ""), ("cloud_controller_v3", "/v3")):
            href = (links.get(name) or {}).get("href")
            if isinstance(href, str) and href.startswith(("https://", "http://")):
                origins[href.rstrip("/").removesuffix(suffix)] = None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UpstreamError("broken", "GET / is not a root document") from error
    if not origins:
        raise UpstreamError("broken", "GET / names no API origin")
    return tuple(origins)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take note of a failure that everybody who waited for it was cancelled from."""
    if not task.cancelled():
        task.exception()


async def _read(response: UpstreamResponse) -> bytes:
    body = b""
    try:
        async for chunk in response.chunks():
            body += chunk
            if len(body) > _LIMIT:
                raise UpstreamError("broken", "GET / is too large for a root document")
    finally:
        await response.release()
    return body
