"""Content that passes through as it arrives, and is kept nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.pipeline.ports import UpstreamResponse


class Relayed:
    """A body on its way through; whoever holds it must exhaust or close it."""

    __slots__ = ("_chunks", "_first", "_response")

    def __init__(self, first: bytes | None, chunks: AsyncIterator[bytes], response: UpstreamResponse) -> None:
        self._first = first
        self._chunks = chunks
        self._response = response

    @classmethod
    async def begin(cls, response: UpstreamResponse, chunks: AsyncIterator[bytes] | None = None) -> Relayed:
        """Wait for the first piece, so that a break before it can still become an error answer.

        Args:
            response: released when the transfer is over or given up.
            chunks: its content, when it is not passed on just as it arrives.

        Raises:
            UpstreamError: it broke off before the first piece.
        """
        chunks = response.chunks() if chunks is None else chunks
        try:
            return cls(await anext(chunks, None), chunks, response)
        except BaseException:
            await response.release()
            raise

    def __aiter__(self) -> Relayed:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        return await anext(self._chunks) if first is None else first

    async def aclose(self) -> None:
        """Release the controller's connection; cuts the transfer when it is not over."""
        await self._response.release()
