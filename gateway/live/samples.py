"""Two looks at `/metrics` and what happened between them: rates, shares, quantiles.

Reads the text format of Prometheus, so that it works on one process, on a supervisor that adds several up, and over a
network. Knows no metric by name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look.

    Attributes:
        at: when, in seconds of any steady clock.
        series: value of each series, by sample name and sorted labels.
    """

    at: float
    series: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str, at: float) -> Snapshot:
        """Read an exposition.

        Args:
            text: in Prometheus' text format.
            at: when it was fetched.

        Raises:
            ValueError: it is something else.
        """
        series: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at, dict(series))

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels; 0 when there are none."""
        wanted = set(labels.items())
        return sum(value for own, value in self.series.get(name, {}).items() if wanted <= set(own))

    def worst(self, name: str) -> float | None:
        """The highest of the series; None when there are none."""
        return max(self.series.get(name, {}).values(), default=None)

    def values(self, name: str, label: str, **labels: str) -> set[str]:
        """The values that a label has among the series with these labels."""
        wanted = set(labels.items())
        return {dict(own).get(label, "") for own in self.series.get(name, {}) if wanted <= set(own)}


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two looks.

    Attributes:
        before: the earlier one.
        after: the later one.
    """

    before: Snapshot
    after: Snapshot

    @property
    def seconds(self) -> float:
        """How far they lie apart."""
        return max(self.after.at - self.before.at, 1e-9)

    def increase(self, name: str, **labels: str) -> float:
        """By how much counters grew; from 0 where they began anew."""
        wanted = set(labels.items())
        earlier = self.before.series.get(name, {})
        grown = 0.0
        for own, value in self.after.series.get(name, {}).items():
            if wanted <= set(own):
                past = earlier.get(own, 0.0)
                grown += value - past if value >= past else value
        return grown

    def rate(self, name: str, **labels: str) -> float:
        """The same a second."""
        return self.increase(name, **labels) / self.seconds

    def rates(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Rates by the values of one label, the highest first, without those that stand still."""
        found = {value: self.rate(name, **{**labels, label: value}) for value in self.after.values(name, label)}
        return dict(sorted(((key, rate) for key, rate in found.items() if rate > 0), key=lambda one: -one[1]))

    def mean(self, name: str, **labels: str) -> float | None:
        """The mean of a histogram's observations; None without any."""
        count = self.increase(f"{name}_count", **labels)
        return self.increase(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """A quantile of a histogram's observations, straight within a bucket as in Prometheus; None without any.

        Args:
            name: the histogram.
            share: from 0 to 1.
            labels: of which series.
        """
        bounds = sorted(self.after.values(f"{name}_bucket", "le", **labels), key=_bound)
        counts = [self.increase(f"{name}_bucket", **{**labels, "le": bound}) for bound in bounds]
        if not counts or counts[-1] <= 0:
            return None
        rank, lower, below = share * counts[-1], 0.0, 0.0
        for bound, count in zip(map(_bound, bounds), counts, strict=True):
            if count >= rank and count > below:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return lower


def _bound(text: str) -> float:
    return math.inf if text == "+Inf" else float(text)
