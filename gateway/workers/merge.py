"""Many processes' metrics as one: pure arithmetic over snapshots.

Counters and histograms are added up, those of processes that have gone included, so that no sum goes backwards. Gauges
become one by the rule of their metric ("sum", "max" or "min"), over the processes that live. Of several exemplars the
newest stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Sample

# (name, help, type, rule, [(sample name, [(label, value), …], value, exemplar or None), …])
Labels = tuple[tuple[str, str], ...]
_GAUGES: Final = frozenset({"gauge", "unknown", "info"})


def snapshot(registry: CollectorRegistry, rules: Mapping[str, str]) -> list[Any]:
    """All that a registry says now, as plain data.

    Args:
        registry: of one process.
        rules: how several processes' values become one, by metric name; "sum" when it is not in there.
    """
    return [
        [
            family.name,
            family.documentation,
            family.type,
            rules.get(family.name, "sum"),
            [
                [sample.name, sorted(sample.labels.items()), sample.value, _plain(sample)]
                for sample in family.samples
                if not sample.name.endswith("_created")
            ],
        ]
        for family in registry.collect()
    ]


class Merged:
    """A collector over the newest snapshots of processes that come and go.

    Args:
        without: metrics that somebody else tells.
    """

    def __init__(self, without: Iterable[str] = ()) -> None:
        self._without: Final = frozenset(name.removesuffix("_total") for name in without)
        self._living: Final[dict[int, list[Any]]] = {}
        self._gone: Final[dict[str, list[Any]]] = {}

    def update(self, process: int, families: Sequence[Any]) -> None:
        """Take a process's newest snapshot."""
        self._living[process] = list(families)

    def bury(self, process: int) -> None:
        """Keep what a process had counted when it was last asked; its gauges go with it."""
        for name, text, kind, rule, samples in self._living.pop(process, ()):
            if kind in _GAUGES:
                continue
            kept = self._gone.setdefault(name, [name, text, kind, rule, []])
            together = (*kept[4], *samples)
            sums, newest = _added(together), _newest(together)
            kept[4] = [[key[0], key[1], value, newest.get(key)] for key, value in sums.items()]

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the processes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything as one process's."""
        families: dict[str, list[Any]] = {}
        for one in (*self._living.values(), self._gone.values()):
            for name, text, kind, rule, samples in one:
                if name in self._without:
                    continue
                family = families.setdefault(name, [text, kind, rule, []])
                family[3] += samples
        for name, (text, kind, rule, samples) in sorted(families.items()):
            metric = Metric(name, text, kind)
            values = _added(samples) if kind not in _GAUGES else _joined(samples, rule)
            newest = _newest(samples)
            for key, value in values.items():
                said = newest.get(key)
                exemplar = None if said is None else Exemplar(dict(said[0]), said[1], said[2])
                metric.add_sample(key[0], dict(key[1]), value, exemplar=exemplar)
            yield metric


def _plain(sample: Sample) -> list[Any] | None:
    """An exemplar as labels, value and epoch seconds."""
    found = sample.exemplar
    return None if found is None else [found.labels, found.value, float(found.timestamp or 0.0)]


def _newest(samples: Iterable[Sequence[Any]]) -> dict[tuple[str, Labels], list[Any]]:
    """The newest exemplar of each sample that has any."""
    found: dict[tuple[str, Labels], list[Any]] = {}
    for sample in samples:
        said = sample[3]
        if said is not None:
            key = _key(sample)
            known = found.get(key)
            if known is None or known[2] <= said[2]:
                found[key] = said
    return found


def _key(sample: Sequence[Any]) -> tuple[str, Labels]:
    return sample[0], tuple((label, value) for label, value in sample[1])


def _added(samples: Iterable[Sequence[Any]]) -> dict[tuple[str, Labels], float]:
    sums: dict[tuple[str, Labels], float] = {}
    for sample in samples:
        key = _key(sample)
        sums[key] = sums.get(key, 0.0) + sample[2]
    return sums


def _joined(samples: Iterable[Sequence[Any]], rule: str) -> dict[tuple[str, Labels], float]:
    values: dict[tuple[str, Labels], list[float]] = {}
    for sample in samples:
        values.setdefault(_key(sample), []).append(sample[2])
    join = {"max": max, "min": min}.get(rule, sum)
    return {key: float(join(found)) for key, found in values.items()}
