"""The script that counts in the store, in Python: for simulations, and to hold the script itself to."""

from __future__ import annotations

from math import floor


def count(
    state: str | None, now: float, kind: str, units: float, first: float, second: float
) -> tuple[str | None, float, float]:
    """One bucket's turn: its state afterwards, and the two answers."""
    if kind == "g":
        full_at = max(now, float(state) if state else now) + units * first
        return (f"{full_at:.7f}" if units > 0 else state), full_at - now, 0.0
    start = floor((now - second) / first) * first + second
    counted = 0.0
    if state:
        began, before = state.split(" ")
        counted = float(before) if float(began) == float(f"{start:.6f}") else 0.0
    counted += units
    return (f"{start:.6f} {counted:.9f}" if units > 0 else state), now - start, counted
