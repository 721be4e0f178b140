"""Many processes' metrics as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.workers.merge import Merged, snapshot


class Process:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("c_total", "Counts.", ("kind",), registry=self.registry)
        self.summed = Gauge("summed", "Adds up.", registry=self.registry)
        self.highest = Gauge("highest", "The most.", registry=self.registry)
        self.least = Gauge("least", "The least.", registry=self.registry)
        self.histogram = Histogram("h", "Spreads.", buckets=(1.0, 2.0), registry=self.registry)

    def snapshot(self) -> list[object]:
        return snapshot(self.registry, {"highest": "max", "least": "min"})


def values(merged: Merged) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(merged)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_counters_and_histograms_add_up_and_gauges_follow_their_rule() -> None:
    merged = Merged()
    for number, amount in ((1, 3.0), (2, 5.0)):
        process = Process()
        process.counter.labels("a").inc(amount)
        process.histogram.observe(amount / 3)
        for gauge in (process.summed, process.highest, process.least):
            gauge.set(amount)
        merged.update(number, process.snapshot())
    found = values(merged)
    assert found['c_total{kind="a"}'] == 8
    assert (found["summed"], found["highest"], found["least"]) == (8, 5, 3)
    assert (found['h_bucket{le="1.0"}'], found['h_bucket{le="2.0"}'], found["h_count"]) == (1, 2, 2)


def exemplars(merged: Merged) -> dict[str, tuple[dict[str, str], float, float]]:
    return {
        sample.labels["le"]: (sample.exemplar.labels, sample.exemplar.value, float(sample.exemplar.timestamp))
        for family in merged.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }


def with_exemplar(trace: str, value: float, at: float) -> list[object]:
    told = Process().snapshot()
    (histogram,) = (family for family in told if family[0] == "h")
    for sample in histogram[4]:
        if dict(sample[1]).get("le") == "2.0":
            sample[3] = [{"trace_id": trace}, value, at]
    return told


def test_the_newest_exemplar_of_a_bucket_stays_also_of_one_that_has_gone() -> None:
    merged = Merged()
    merged.update(1, with_exemplar("older", 1.5, 10.0))
    merged.update(2, with_exemplar("newer", 1.7, 20.0))
    merged.update(3, Process().snapshot())
    assert exemplars(merged) == {"2.0": ({"trace_id": "newer"}, 1.7, 20.0)}
    merged.bury(2)
    assert exemplars(merged) == {"2.0": ({"trace_id": "newer"}, 1.7, 20.0)}
    merged.update(1, with_exemplar("newest", 1.2, 30.0))
    assert exemplars(merged) == {"2.0": ({"trace_id": "newest"}, 1.2, 30.0)}


def test_workers_with_different_settings_are_seen_as_different() -> None:
    """What `GatewaySettingsDiffer` counts: each fingerprint is a series of its own, also within one instance."""
    merged = Merged()
    for number, sha256 in ((1, "aa"), (2, "bb"), (3, "bb")):
        registry = CollectorRegistry()
        Gauge("gateway_config_info", "Settings.", ("sha256",), registry=registry).labels(sha256).set(1)
        merged.update(number, snapshot(registry, {"gateway_config_info": "max"}))
    assert values(merged) == {'gateway_config_info{sha256="aa"}': 1, 'gateway_config_info{sha256="bb"}': 1}


def test_the_types_and_texts_stay() -> None:
    merged = Merged()
    merged.update(1, Process().snapshot())
    kinds = {family.name: (family.type, family.documentation) for family in merged.collect()}
    assert kinds["c"] == ("counter", "Counts.")
    assert kinds["h"] == ("histogram", "Spreads.")


def test_what_somebody_else_tells_is_left_out() -> None:
    merged = Merged(without=("c_total", "summed"))
    merged.update(1, Process().snapshot())
    assert {family.name for family in merged.collect()} == {"highest", "least", "h"}


@given(st.lists(st.tuples(st.sampled_from(["count", "look", "die"]), st.integers(1, 3), st.integers(0, 5))))
def test_no_counter_goes_backwards_whoever_dies(steps: list[tuple[str, int, int]]) -> None:
    merged = Merged()
    living = {number: Process() for number in (1, 2, 3)}
    before: dict[str, float] = {}
    for what, number, amount in steps:
        if what == "count":
            living[number].counter.labels("a").inc(amount)
            living[number].histogram.observe(amount)
            living[number].summed.set(amount)
        elif what == "look":
            merged.update(number, living[number].snapshot())
        else:
            merged.bury(number)
            living[number] = Process()
        now = {name: value for name, value in values(merged).items() if name.startswith(("c_", "h_"))}
        assert all(now.get(name, 0) >= value for name, value in before.items())
        before = now
