"""What can come of asking the origin in mode `origin`, once the head of its answer is known. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.caching import StoredResponse
    from gateway.core.model import Fields
    from gateway.pipeline.filling import Filling, Reader
    from gateway.pipeline.ports import UpstreamResponse
    from gateway.pipeline.resource import Variant


class AbandonedError(UpstreamError):
    """Nobody read the content any more, so it was given up; who still wants it has to ask again."""

    def __init__(self) -> None:
        super().__init__("broken", "the transfer was given up")


@dataclass(frozen=True, slots=True)
class Alone:
    """An answer that is not stored, and so belongs to the one who asked.

    Attributes:
        status: status code.
        fields: the fields for the client.
        phrase: the reason phrase.
        reason: why it is not stored.
    """

    status: int
    fields: Fields
    phrase: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What is stored may be served: the origin said 304, or another process has just stored it.

    Attributes:
        variant: the stored response as it is now.
        elsewhere: whether it is another process's and the origin was not asked.
    """

    variant: Variant
    elsewhere: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """An answer that is being stored, readable by everyone whose request it may answer.

    Attributes:
        stored: what will be stored.
        phrase: the reason phrase.
        filling: the content as it comes in.
    """

    stored: StoredResponse
    phrase: str | None
    filling: Filling


Outcome: TypeAlias = Alone | Confirmed | Shared


class Lead:
    """What of a fetch belongs to the one who began it; let go of when that one has gone.

    Attributes:
        response: an answer that is not shared.
        content: its content.
        reader: the first reader of one that is.
    """

    __slots__ = ("_gone", "content", "reader", "response")

    def __init__(self) -> None:
        self._gone = False
        self.response: UpstreamResponse | None = None
        self.content: AsyncIterator[bytes] | None = None
        self.reader: Reader | None = None

    async def give(self, response: UpstreamResponse, content: AsyncIterator[bytes]) -> None:
        """Hand over an answer that is nobody else's."""
        if self._gone:
            await response.release()
        else:
            self.response, self.content = response, content

    def read(self, shared: Shared) -> None:
        """Hand over a reader of an answer that others read too."""
        if not self._gone:
            self.reader = shared.filling.reader()

    async def abandon(self) -> None:
        """The one who began has gone, or has no use for it."""
        self._gone = True
        if self.reader is not None:
            await self.reader.aclose()
        if self.response is not None:
            await self.response.release()
