"""Follows the bytes given to aiohttp's parser, to know when it stands between two messages.

The hit lane may take a segment only when no byte of a message before it is still inside of the parser, and the parser
does not say. The law: `clean` is true only when that is certain; whatever is not followed (chunked content, pipelined
or malformed input) makes it false for the rest of the connection. Nothing here reads more than the end of a head.
"""

from __future__ import annotations

from typing import Final

_END: Final = b"\r\n\r\n"
_UNKNOWN: Final = -1


class Boundary:
    """Where the parser of one connection stands.

    Attributes:
        clean: whether it stands between two messages.
    """

    __slots__ = ("_owed", "_tail", "clean")

    def __init__(self) -> None:
        self.clean = True
        self._tail = b""  # the last bytes of a head whose end has not come yet
        self._owed = 0  # bytes of content that are still to come

    def head_ends(self, data: bytes) -> int | None:
        """Note a segment that is about to be parsed.

        Args:
            data: the segment, not empty.

        Returns:
            Where the head it belongs to ends in it, None when there is nothing to say about a head.
        """
        if self._owed:
            self._owed = self._owed - len(data) if len(data) <= self._owed else _UNKNOWN
            self.clean = self._owed == 0
            return None
        if self.clean and data[0] in _END:
            self._owed = _UNKNOWN  # empty lines before a request (RFC 9112 §2.2)
        if self._owed == _UNKNOWN:
            self.clean = False
            return None
        self.clean = False
        seen = self._tail + data
        found = seen.find(_END)
        if found < 0:
            self._tail = seen[-3:]
            return None
        end = found + len(_END) - len(self._tail)
        self._tail = b""
        self._owed = _UNKNOWN  # until `message` says what follows
        return end

    def message(self, left: int, length: int | None) -> None:
        """Say what follows a head that has just ended, when the parser took it for exactly one request.

        Args:
            left: bytes of the segment behind the head.
            length: bytes of content, None when only the parser knows.
        """
        if length is None or left > length:
            return
        self._owed = length - left
        self.clean = self._owed == 0
