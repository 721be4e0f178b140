"""Faults on demand: what tests make the controller do wrong, and to which requests.

A register of faults, settable while the controller runs; `controller` asks it once a request and `wire` carries it out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Break(StrEnum):
    """How a connection or a body is broken."""

    CLOSE_BEFORE_HEAD = "close_before_head"
    """Close the connection without an answer."""
    STALL_BEFORE_HEAD = "stall_before_head"
    """Send nothing until the faults are cleared."""
    STALL_MID_BODY = "stall_mid_body"
    """Send `after` bytes of the body, then nothing until the faults are cleared."""
    CLOSE_MID_BODY = "close_mid_body"
    """Send `after` bytes of the body, then close."""
    RESET_MID_BODY = "reset_mid_body"
    """Send `after` bytes of the body, then reset (RST)."""
    WRONG_LENGTH = "wrong_length"
    """Claim `length_error` more bytes than the body has, or fewer when negative."""


@dataclass(slots=True)
class Fault:
    """One fault.

    Attributes:
        matching: Part of `METHOD target` of the requests concerned; empty for all.
        latency: Seconds to wait before answering.
        lag: Seconds to hold the answer back once it is made: what it says may not be true any more when it is sent.
        status: Status to answer instead of the real answer.
        broken: How to break the connection, or None.
        after: Body bytes sent before a break amid the body.
        length_error: See `Break.WRONG_LENGTH`.
        times: How many requests it concerns, or None for no end.
    """

    matching: str = ""
    latency: float = 0.0
    lag: float = 0.0
    status: int | None = None
    broken: Break | None = None
    after: int = 0
    length_error: int = 0
    times: int | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """A fault from its JSON form; raises `TypeError` or `ValueError` when it is none."""
        known = {each.name for each in fields(cls)}
        if unknown := set(value) - known:
            raise ValueError(f"unknown members: {sorted(unknown)}")
        fault = cls(**value)
        fault.broken = Break(fault.broken) if fault.broken is not None else None
        return fault


@dataclass(slots=True)
class Faults:
    """The faults in force; the first that matches a request is the one."""

    _faults: list[Fault] = field(default_factory=list)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force."""
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """End all faults and let the stalled requests go on."""
        self._faults.clear()
        self._released.set()
        self._released = asyncio.Event()

    def take(self, method: str, target: str) -> Fault | None:
        """The fault of this request, used up by one."""
        for fault in self._faults:
            if fault.matching in f"{method} {target}":
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None

    async def stalled(self) -> None:
        """Wait until the faults are cleared."""
        await self._released.wait()
