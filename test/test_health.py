"""Rates, latencies and the messages that carry them."""

from diagnostic_msgs.msg import DiagnosticStatus

from ofvl_ros.health import WINDOW, Health, diagnostic_status
from ofvl_ros.states import LEVELS, WITHOUT_MAP


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_of_the_last_seconds_and_totals_of_all() -> None:
    clock = FakeClock()
    health = Health(clock)
    for _ in range(300):
        clock.now += 0.1
        health.count("images")
    summary = health.summary()
    assert abs(float(summary["images (Hz)"]) - 10.0) <= 0.2
    assert summary["images (total)"] == "300"
    clock.now += WINDOW + 1
    summary = health.summary()
    assert (summary["images (Hz)"], summary["images (total)"]) == ("0.0", "300")
    assert health.total("images") == 300


def test_a_young_stream_is_not_diluted() -> None:
    clock = FakeClock()
    health = Health(clock)
    for _ in range(10):
        clock.now += 0.1
        health.count("images")
    assert abs(float(health.summary()["images (Hz)"]) - 10.0) < 0.1


def test_durations_become_percentiles_and_are_forgotten() -> None:
    clock = FakeClock()
    health = Health(clock)
    for milliseconds in range(1, 101):
        health.took("network", milliseconds / 1000)
    summary = health.summary()
    assert abs(float(summary["network (ms, median)"]) - 50.5) < 0.1
    assert abs(float(summary["network (ms, 95 %)"]) - 95.05) < 0.1
    clock.now += WINDOW + 1
    assert health.summary() == {}


def test_values_of_any_kind_become_text() -> None:
    status = diagnostic_status(
        DiagnosticStatus.WARN, "localizer: stream", "all well", {"rate": 3.5, "none": None}
    )
    assert (status.level, status.name, status.message) == (
        DiagnosticStatus.WARN,
        "localizer: stream",
        "all well",
    )
    assert [(pair.key, pair.value) for pair in status.values] == [("rate", "3.5"), ("none", "None")]


def test_only_a_localized_robot_is_well() -> None:
    assert [state for state, level in LEVELS.items() if level == DiagnosticStatus.OK] == ["localized"]
    assert set(LEVELS) > WITHOUT_MAP
