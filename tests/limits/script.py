"""The script that counts in the store, in Python: for simulations, and to hold the script itself to."""

from __future__ import annotations

from math import floor


def count(
    state: str | None,
    now: float,
    kind: str,
    units: float,
    first: float,
    second: float,
    since: float,
    told: float,
    most: float,
    *,
    same: bool = True,
) -> tuple[str | None, float, float]:
    """One bucket's turn: its state afterwards, and the two answers."""
    if kind == "g":
        before = max(now, float(state) if state else now)
        full_at = min(max(before, since) if same else before, now + most) + units * first
        return (state if full_at == before else f"{full_at:.7f}"), full_at, 0.0
    start = floor((now - second) / first) * first + second
    counted = 0.0
    if state:
        began, kept = state.split(" ")
        counted = float(kept) if abs(float(began) - start) < first / 2 else 0.0
    before = counted
    if same and abs(since - start) < first / 2:
        counted = max(counted, told)
    counted = min(counted, most) + units
    return (state if counted == before else f"{start:.6f} {counted:.9f}"), start, counted
