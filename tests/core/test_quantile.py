"""The histogram agrees with a sorted list, within its error, in its window and in bounded memory."""

from __future__ import annotations

import random
from math import floor, inf, nan
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience._core.quantile import LatencyHistogram

TRUTH = 3.728  # the 95th percentile of lognormal(0, 0.8)
QUANTILES = (0.0, 0.05, 0.5, 0.95, 0.99, 1.0)


def exact(values: list[float], q: float) -> float:
    return sorted(values)[floor(q * (len(values) - 1))]


class HistogramMachine(RuleBasedStateMachine):
    """A window of 6 s in slices of one second, beside a list of all that was ever recorded."""

    @initialize(start=st.sampled_from([-100.0, 0.0, 0.5, 1e6]))
    def begin(self, start: float) -> None:
        self.histogram = LatencyHistogram(6.0)
        self.window = 6.0
        self.now = start
        self.told: list[tuple[float, float]] = []

    @rule(seconds=st.floats(1e-6, 86_400.0), count=st.integers(1, 5))
    def record(self, seconds: float, count: int) -> None:
        self.histogram.record(self.now, seconds, count)
        self.told += [(self.now, seconds)] * count

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.75, 5.0, 6.0, 13.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.lists(st.floats(1e-6, 86_400.0), min_size=1, max_size=5))
    def merge(self, seconds: list[float]) -> None:
        other = LatencyHistogram(self.window)
        for one in seconds:
            other.record(self.now - 2.0, one)
        self.histogram.merge(other, self.now)
        self.told += [(self.now - 2.0, one) for one in seconds]

    @rule(window=st.sampled_from([3.0, 6.0, 12.0, 60.0]))
    def resize(self, window: float) -> None:
        """What is known stays known, as of when its slice began."""
        self.histogram = self.histogram.resized(window, self.now)
        width = self.window / 6
        self.told = [(at // width * width, seconds) for at, seconds in self.live()]
        self.window = window

    def live(self) -> list[tuple[float, float]]:
        width = self.window / 6
        return [(at, seconds) for at, seconds in self.told if self.now // width - at // width < 6]

    @invariant()
    def agrees(self) -> None:
        """Every quantile is within the error of what the sorted list says."""
        live = [seconds for _, seconds in self.live()]
        assert self.histogram.count(self.now) == len(live)
        for q in QUANTILES:
            found = self.histogram.quantile(self.now, q)
            assert (found is None) is (not live)
            if found is not None:
                assert found == pytest.approx(exact(live, q), rel=0.02 + 1e-9)


TestHistogram = HistogramMachine.TestCase
TestHistogram.settings = settings(max_examples=60, stateful_step_count=25)


@given(st.lists(st.floats(1e-6, 86_400.0), min_size=1), st.floats(0, 1), st.sampled_from([0.001, 0.02, 0.3]))
@settings(max_examples=60)
def test_any_quantile(values: list[float], q: float, error: float) -> None:
    """Any quantile of any latencies is off by no more than the error that was asked for."""
    histogram = LatencyHistogram(error=error)
    for value in values:
        histogram.record(0.0, value)
    assert histogram.quantile(0.0, q) == pytest.approx(exact(values, q), rel=error + 1e-9)


# -- the figures of a simulation ---------------------------------------------------------------------------------------


def test_the_95th_percentile_of_a_lognormal_provider() -> None:
    """Over a rotating window of 1,000 to 1,200 calls the estimate has the known mean, spread and share beyond it."""
    rng = random.Random(46)
    histogram = LatencyHistogram(1200.0)
    estimates, beyond = [], 0
    for call in range(30_000):
        seconds = rng.lognormvariate(0, 0.8)
        if call >= 1200:
            estimate = histogram.quantile(float(call), 0.95)
            assert estimate is not None
            estimates.append(estimate)
            beyond += seconds > estimate
        histogram.record(float(call), seconds)
    assert mean(estimates) == pytest.approx(TRUTH, rel=0.02)
    assert stdev(estimates) < 0.23
    assert beyond / len(estimates) == pytest.approx(0.05, abs=0.004)


def test_with_many_samples_only_the_error_of_the_bins_is_left() -> None:
    """100,000 calls in one window put the 95th percentile within 2 % and a hair of the truth."""
    rng = random.Random(1)
    histogram = LatencyHistogram()
    for _ in range(100_000):
        histogram.record(0.0, rng.lognormvariate(0, 0.8))
    assert histogram.quantile(0.0, 0.95) == pytest.approx(TRUTH, rel=0.02 + 0.01)


def test_it_adapts_to_a_slowdown() -> None:
    """When everything takes three times as long, the estimate has followed within two thirds of a window."""
    rng = random.Random(2)
    histogram = LatencyHistogram(1200.0)
    for call in range(1200):
        histogram.record(float(call), rng.lognormvariate(0, 0.8))
    for call in range(1200, 2400):
        histogram.record(float(call), 3 * rng.lognormvariate(0, 0.8))
        estimate = histogram.quantile(float(call), 0.95)
        if estimate is not None and estimate > 0.9 * 3 * TRUTH:
            break
    assert call < 1200 + 900


# -- edges -------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_at_first_and_in_the_end() -> None:
    """Without latencies in the window there is no quantile."""
    histogram = LatencyHistogram(60.0)
    assert histogram.quantile(0.0, 0.5) is None
    histogram.record(0.0, 1.0)
    assert histogram.quantile(59.0, 0.5) == pytest.approx(1.0, rel=0.021)
    assert (histogram.quantile(60.0, 0.5), histogram.count(60.0)) == (None, 0)


def test_the_oldest_slice_leaves_alone() -> None:
    """Latencies leave a sixth of the window at a time."""
    histogram = LatencyHistogram(60.0)
    for at in (5.0, 15.0, 25.0):
        histogram.record(at, at)
    assert [histogram.count(now) for now in (59.0, 64.0, 70.0, 80.0)] == [3, 2, 1, 0]


def test_time_that_goes_backwards_stands_still() -> None:
    """A moment that lies before the last one counts as that."""
    histogram = LatencyHistogram(60.0)
    histogram.record(100.0, 1.0)
    histogram.record(30.0, 1.0)
    assert (histogram.count(30.0), histogram.count(159.0), histogram.count(160.0)) == (2, 2, 0)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, nan])
def test_the_smallest_latency(seconds: float) -> None:
    """What is below a microsecond, or no number, counts as a microsecond."""
    histogram = LatencyHistogram()
    histogram.record(0.0, seconds)
    assert histogram.quantile(0.0, 0.5) == pytest.approx(1e-6, rel=0.021)


@pytest.mark.parametrize("seconds", [86_400.0, 1e9, inf])
def test_the_largest_latency(seconds: float) -> None:
    """What is beyond a day counts as a day."""
    histogram = LatencyHistogram()
    histogram.record(0.0, seconds)
    assert histogram.quantile(0.0, 0.5) == pytest.approx(86_400.0, rel=0.021)


def test_memory_is_bounded() -> None:
    """However many and however different the latencies, the bins stay a few hundred."""
    rng = random.Random(3)
    histogram = LatencyHistogram()
    for call in range(20_000):
        histogram.record(call / 100, 10 ** rng.uniform(-9, 9))
    assert len(histogram._bins) < 700
    assert sum(map(len, histogram._slices)) < 6 * 700


def test_histograms_of_other_shapes_are_not_merged() -> None:
    """Merging takes the same window and the same error."""
    for other in (LatencyHistogram(30.0), LatencyHistogram(60.0, error=0.01)):
        with pytest.raises(ValueError, match="same window and error"):
            LatencyHistogram(60.0).merge(other, 0.0)


@pytest.mark.parametrize("window", [0.0, -1.0, inf, nan])
def test_a_window_without_length_is_refused(window: float) -> None:
    """A window is a positive, finite number of seconds."""
    with pytest.raises(ValueError, match="positive, finite"):
        LatencyHistogram(window)


@pytest.mark.parametrize("error", [0.0, 1.0, 2.0, -0.1])
def test_an_impossible_error_is_refused(error: float) -> None:
    """The relative error lies between 0 and 1."""
    with pytest.raises(ValueError, match=r"such as 0\.02"):
        LatencyHistogram(60.0, error)


@pytest.mark.parametrize("q", [-0.1, 1.1, 95, nan])
def test_an_impossible_quantile_is_refused(q: float) -> None:
    """A quantile is a share: the 95th percentile is 0.95."""
    with pytest.raises(ValueError, match=r"0\.95"):
        LatencyHistogram().quantile(0.0, q)


def test_short_windows_hold_on_both_sides_of_the_clocks_zero() -> None:
    """Six tenths of a second are remembered for half a second at least, wherever the clock stands."""
    histogram = LatencyHistogram(0.6)
    histogram.record(-0.05, 1.0)
    assert histogram.count(0.45) == 1
    assert histogram.count(0.55) == 0


def test_another_window_is_as_exact_as_the_one_before() -> None:
    """The bins, and with them what was put into them, stay the same."""
    histogram = LatencyHistogram(60.0, error=0.3)
    histogram.record(0.0, 2.0)
    wider = histogram.resized(600.0, 1.0)
    assert wider.error == 0.3
    assert wider.quantile(1.0, 0.5) == histogram.quantile(1.0, 0.5)
    wider.merge(LatencyHistogram(600.0, error=0.3), 1.0)
    with pytest.raises(ValueError, match=r"^only histograms of the same window and error can be merged$"):
        wider.merge(histogram, 1.0)
