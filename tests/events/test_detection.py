"""From counts to alerts: opened, extended, closed by themselves, and cool afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import OperationalError, connection, connections, transaction
from django.db.models import Model
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_ratelimit_tiers.core.alerts import AlertEvent
from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.tallies import Tally
from django_ratelimit_tiers.events import detection
from django_ratelimit_tiers.events.alerts import alerts_of, close, tell
from django_ratelimit_tiers.events.detection import detect_anomalies, judged_minute
from django_ratelimit_tiers.events.series import recording_since
from django_ratelimit_tiers.events.times import moment
from django_ratelimit_tiers.models import (
    Alert,
    AlertNotice,
    AlertRule,
    PolicyRevision,
    SeriesHour,
    ThrottleCount,
    UsageCount,
)
from django_ratelimit_tiers.signals import alert_closed, alert_opened
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import fill_minute, key

pytestmark = pytest.mark.django_db

DAY, HOUR = 1440, 60
START = 1_790_000_040 // 86_400 * DAY + 10 * HOUR
"""Ten in the morning of some day, in minutes since the epoch."""


@pytest.fixture(autouse=True)
def _one_rule() -> None:
    AlertRule.objects.all().delete()
    installed_at(START - HOUR)


@pytest.fixture
def moments() -> Iterator[list[str]]:
    """What the signals tell."""
    told: list[str] = []

    def opened(alert: Alert, **_: Any) -> None:
        told.append(f"opened {alert.cause}")

    def closed(alert: Alert, **_: Any) -> None:
        told.append(f"closed {alert.cause}")

    alert_opened.connect(opened)
    alert_closed.connect(closed)
    yield told
    alert_opened.disconnect(opened)
    alert_closed.disconnect(closed)


def installed_at(minute: int) -> None:
    PolicyRevision.objects.update(created_at=moment(minute * 60))


def watch(kind: str = "spike", **fields: Any) -> AlertRule:
    return AlertRule.objects.create(name=f"any {kind}", kind=kind, **fields)


def refuse(minute: int, count: int, **fields: Any) -> None:
    fields = {"policy": "free-minute", "subject": "user:1", "endpoint": "GET api"} | fields
    ThrottleCount.objects.create(minute=moment(minute * 60), count=count, **fields)


def refuse_steadily(start: int, end: int, count: int = 5, **fields: Any) -> None:
    for minute in range(start, end):
        refuse(minute, count, **fields)


def detect_at(minute: int) -> None:
    """Run the detectors when this minute is the last that is over."""
    detect_anomalies(now=minute * 60 + 65)


def fail(first_word: str, model: type[Model]) -> AbstractContextManager[None]:
    """Fail at statements that begin so and name the model's table, as a broken database would."""

    def failing(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith(first_word) and model._meta.db_table in sql:
            raise OperationalError("gone away")
        return execute(sql, *rest)

    return connection.execute_wrapper(failing)


def test_a_spike_opens_an_alert_in_its_first_minute(
    moments: list[str], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    watch()
    refuse_steadily(START - 60, START)
    detect_at(START - 1)
    assert not Alert.objects.exists()
    refuse(START, 100, subject="user:2")
    with django_capture_on_commit_callbacks(execute=True):
        detect_at(START)
    alert = Alert.objects.get()
    assert (alert.kind, alert.state, alert.cause) == ("spike", "open", "any spike")
    assert alert.opened_at == moment(START * 60)
    assert (alert.peak, alert.baseline) == (100, 5)
    assert alert.detail["top subjects"] == ["user:2 (100)"]
    assert "100 in the minute" in alert.detail["explanation"]
    assert moments == ["opened any spike"]


def test_the_first_refusals_ever_are_an_alert_if_hours_without_any_came_before() -> None:
    watch()
    installed_at(START - 3 * HOUR)
    refuse_steadily(START, START + 2 * HOUR, 5000)
    detect_at(START)
    assert Alert.objects.get().opened_at == moment(START * 60)


def test_running_again_changes_nothing(moments: list[str]) -> None:
    watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    before = Alert.objects.values().get()
    detect_at(START)
    assert Alert.objects.values().get() == before


def test_one_alert_is_extended_while_it_lasts_and_closes_by_itself(
    moments: list[str], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    watch()
    refuse_steadily(START - 60, START)
    refuse_steadily(START, START + 5, 100)
    refuse(START + 2, 200, subject="user:3")
    refuse_steadily(START + 5, START + 40)
    with django_capture_on_commit_callbacks(execute=True):
        for minute in range(START, START + 40):
            detect_at(minute)
    alert = Alert.objects.get()
    assert (alert.peak, alert.state) == (300, "closed")
    assert alert.last_seen_at == moment((START + 4) * 60)
    assert alert.closed_at == moment((START + 14) * 60)
    assert moments == ["opened any spike", "closed any spike"]


def test_missed_runs_are_made_up(moments: list[str]) -> None:
    watch()
    refuse_steadily(START - 60, START)
    refuse_steadily(START, START + 3, 100)
    detect_at(START + 55)
    alert = Alert.objects.get()
    assert alert.opened_at == moment(START * 60)
    assert alert.last_seen_at == moment((START + 2) * 60)


def test_an_alert_in_its_cool_down_opens_again_instead_of_a_new_one() -> None:
    watch(cooldown=1800)
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    refuse(START + 25, 100)
    for minute in range(START, START + 26):
        detect_at(minute)
    alert = Alert.objects.get()
    assert (alert.state, alert.closed_at) == ("open", None)


def test_an_alert_that_a_newer_version_opened_is_judged_and_closed() -> None:
    """While both run side by side, and after going back to this one."""
    watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    alert = Alert.objects.get()
    alert.alarm["what a newer one keeps"] = 1
    alert.save()
    detect_at(START + 59)
    assert Alert.objects.get().state == "closed"


def test_after_the_cool_down_it_is_a_new_alert() -> None:
    watch(cooldown=600)
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    refuse(START + 40, 400)
    for minute in range(START, START + 41):
        detect_at(minute)
    assert [a.state for a in Alert.objects.order_by("opened_at")] == ["closed", "open"]


def test_what_lasts_for_hours_is_told_as_going_on_and_explained_as_at_first() -> None:
    watch(emails="ops@example.com")
    refuse_steadily(START - 60, START)
    refuse_steadily(START, START + 366, 1000, subject="user:2")
    detect_at(START)
    opened = Alert.objects.get().detail
    detect_at(START + 365)
    alert = Alert.objects.get()
    assert (alert.state, alert.alarm["settled"]) == ("closed", True)
    assert alert.detail["explanation"] == opened["explanation"]
    assert alert.detail["top subjects"] == ["user:2 (360000)"]
    [_, last] = mail.outbox
    assert last.subject == "Alert still going on: any spike"
    assert "reported no more" in last.body
    assert "Over since" not in last.body


def test_an_acknowledged_alert_stays_acknowledged_until_it_closes() -> None:
    watch()
    refuse_steadily(START - 60, START)
    refuse_steadily(START, START + 3, 100)
    detect_at(START)
    Alert.objects.update(state="acknowledged", acknowledged_at=timezone.now())
    detect_at(START + 1)
    assert Alert.objects.get().state == "acknowledged"
    for minute in range(START + 2, START + 20):
        detect_at(minute)
    assert Alert.objects.get().state == "closed"


def test_an_alert_that_could_not_be_closed_is_closed_by_the_next_run() -> None:
    watch(emails="ops@example.com")
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    for minute in range(START, START + 10):
        detect_at(minute)
    with fail("INSERT", AlertNotice):
        detect_at(START + 10)
    assert Alert.objects.get().state == "open"
    detect_at(START + 11)
    assert Alert.objects.get().state == "closed"


def test_a_rule_that_is_switched_off_and_on_opens_its_alert_again() -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    refuse_steadily(START, START + 5, 100)
    detect_at(START)
    AlertRule.objects.filter(pk=rule.pk).update(is_active=False)
    detect_at(START + 1)
    assert Alert.objects.get().state == "closed"
    AlertRule.objects.filter(pk=rule.pk).update(is_active=True)
    detect_at(START + 2)
    assert Alert.objects.get().state == "open"


class AlertsElsewhere:
    """A router to a database of the app's own."""

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        return "limits" if model._meta.app_label == "django_ratelimit_tiers" else None


@pytest.fixture
def _other_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    other = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3"}
    monkeypatch.setitem(connections.settings, "limits", {**other, "NAME": ":memory:"})
    connections["limits"].connect()
    yield
    connections["limits"].connection.close()  # Django keeps one in memory open
    del connections["limits"]


@pytest.mark.usefixtures("_other_database")
def test_signals_wait_for_the_commit_of_the_database_that_alerts_are_in(moments: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=[AlertsElsewhere()]):
        with transaction.atomic(using="limits"):
            tell(Alert(cause="a spike"), AlertEvent.OPENED)
            assert moments == []
        assert moments == ["opened a spike"]


def test_each_series_has_an_alert_of_its_own() -> None:
    watch(grouping="endpoint")
    for endpoint in ("GET a", "GET b", "GET c"):
        refuse_steadily(START - 60, START, endpoint=endpoint)
    refuse(START, 100, endpoint="GET a")
    refuse(START, 100, endpoint="GET b")
    detect_at(START)
    causes = set(Alert.objects.values_list("cause", flat=True))
    assert causes == {"any spike: GET a", "any spike: GET b"}


def test_series_whose_long_names_begin_alike_have_alerts_of_their_own() -> None:
    watch(grouping="endpoint")
    for endpoint in ("GET " + 100 * "a" + "/b", "GET " + 100 * "a" + "/c"):
        refuse_steadily(START - 60, START, endpoint=endpoint)
        refuse(START, 100, endpoint=endpoint)
    detect_at(START)
    assert Alert.objects.count() == 2


def test_a_rule_sees_only_what_it_is_about() -> None:
    watch(policy="pro-minute")
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    assert not Alert.objects.exists()


def test_shadow_refusals_raise_nothing() -> None:
    watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100, mode="shadow")
    detect_at(START)
    assert not Alert.objects.exists()


def test_less_than_the_minimum_raises_nothing() -> None:
    watch(minimum_volume=200)
    refuse(START, 199)
    detect_at(START)
    assert not Alert.objects.exists()


def test_detection_reads_no_counts_of_every_resolution() -> None:
    """Their index begins with the resolution, and history may have millions of them."""
    watch()
    refuse(START - DAY, 3, resolution="day")
    refuse(START - HOUR, 3)
    with CaptureQueriesContext(connection) as captured:
        detect_at(START)
    table = ThrottleCount._meta.db_table
    asked = [
        query["sql"]
        for query in captured
        if f"FROM {connection.ops.quote_name(table)}" in query["sql"]
    ]
    assert asked
    assert [sql for sql in asked if "resolution" not in sql.partition("WHERE")[2]] == []
    assert recording_since(START) == START - DAY


@pytest.mark.parametrize(
    ("sensitivity", "count", "found"),
    [("low", 25, False), ("normal", 25, True), ("normal", 17, False), ("high", 17, True)],
)
def test_a_rule_is_as_sensitive_to_spikes_as_staff_has_made_it(
    sensitivity: str, count: int, found: bool
) -> None:
    watch(sensitivity=sensitivity, minimum_volume=1)
    refuse_steadily(START - 60, START)
    refuse(START, count)
    detect_at(START)
    assert Alert.objects.exists() is found


def test_complete_hours_outlive_their_minutes() -> None:
    rule = watch()
    refuse_steadily(START - 60, START - 30, 4)
    refuse(START - 20, 30)
    detect_at(START)
    [hour] = SeriesHour.objects.all()
    assert (hour.rule, hour.total, hour.peak) == (rule, 150, 30)
    assert hour.hour == moment((START - 60) * 60)


@pytest.mark.parametrize("phase", [0, 4, 59])
def test_hours_are_kept_in_whichever_minute_detection_runs(phase: int) -> None:
    rule = watch()
    refuse_steadily(START - 3 * HOUR, START)
    for hours in (2, 1, 0):
        detect_at(START - hours * HOUR + phase)
    assert list(rule.hours.filter(total=300).values_list("hour", flat=True)) == [
        moment((START - hours * HOUR) * 60) for hours in (1, 2, 3)
    ]


def test_a_quiet_hour_is_kept_once_and_not_looked_for_again() -> None:
    rule = watch()
    detect_at(START)
    with fail("SELECT SUM", ThrottleCount):
        detect_at(START + 1)
    assert list(rule.hours.values_list("series", "total", "peak")) == [("", 0, 0)]


def test_a_rule_knows_the_days_before_it_was_made() -> None:
    for day in range(3, 12):
        refuse(START - day * DAY, 9000, resolution="hour")
    PolicyRevision.objects.update(created_at=moment((START - 20 * DAY) * 60))
    rule = watch(grouping="policy")
    refuse_steadily(START - 30, START, 1)
    refuse(START, 150)
    detect_at(START)
    assert not Alert.objects.exists()
    kept = rule.hours.filter(total=9000)
    assert set(kept.values_list("series", "peak")) == {("free-minute", 150)}
    assert kept.count() == 9


@pytest.mark.parametrize(
    "change", [{"grouping": "tier"}, {"policy": "p"}, {"endpoint": "GET a"}, {"tier": "free"}]
)
def test_a_rule_that_is_about_something_else_forgets_what_was_usual(change: Any) -> None:
    rule = watch()
    SeriesHour.objects.create(rule=rule, hour=moment(START * 60), total=9000, peak=200)
    rule.save()
    assert rule.hours.exists()
    for name, value in change.items():
        setattr(rule, name, value)
    rule.save()
    assert not rule.hours.exists()


def test_what_is_usual_at_this_time_of_day_raises_nothing() -> None:
    rule = watch()
    for day in range(1, 15):
        at = START - day * DAY
        hour = moment(at * 60)
        SeriesHour.objects.create(rule=rule, series="", hour=hour, total=9000, peak=200)
    installed_at(START - 20 * DAY)
    refuse(START, 150)
    detect_at(START)
    assert not Alert.objects.exists()


def test_no_minute_is_judged_before_all_before_it_are_written() -> None:
    fill_minute((START - 2) * 60, {key(): 5})
    records = configured_store().records
    assert judged_minute(records, START * 60 + 65) == START - 3
    records.forget_minute((START - 2) * 60)
    assert judged_minute(records, START * 60 + 65) == START


def test_alerts_of_a_rule_that_watches_no_more_are_closed() -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    rule.is_active = False
    rule.save()
    detect_at(START + 1)
    assert Alert.objects.get().state == "closed"


def test_a_cause_whose_alert_another_process_has_just_opened_is_judged_to_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    for minute in (START, START + 1):
        refuse(minute, 100)
    times = dict.fromkeys(("opened_at", "last_seen_at"), moment(START * 60))
    Alert.objects.create(kind="spike", cause="any spike", rule=rule, **times)
    detect_at(START + 1)
    assert "an alert of this cause is open already: any spike" in caplog.text
    assert "could not be judged" not in caplog.text
    assert Alert.objects.count() == 1


def test_an_alert_that_another_process_has_closed_is_announced_once(
    moments: list[str], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    with django_capture_on_commit_callbacks(execute=True):
        detect_at(START)
        alert = Alert.objects.get(rule=rule)
        for _ in range(2):
            close(alert, moment((START + 1) * 60))
    assert [told.partition(" ")[0] for told in moments] == ["opened", "closed"]


def test_an_alert_of_what_a_rule_looked_for_before_is_not_opened_again() -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    close(Alert.objects.get(), moment((START + 1) * 60))
    rule.kind = "near_limit"
    assert not alerts_of(rule).exists()


@pytest.mark.parametrize("other", ["near_limit", "ip_rotation", "slow_drip"])
def test_alerts_of_a_rule_that_looks_for_something_else_now_are_closed(other: str) -> None:
    rule = watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    detect_at(START)
    rule.kind = other
    rule.save()
    detect_at(START + 1)
    assert Alert.objects.get().state == "closed"


def this_minute() -> int:
    return configured_store().records.now() // 60


def test_one_user_from_many_addresses_is_an_alert_until_it_stops() -> None:
    watch("ip_rotation", minimum_volume=20)
    records = configured_store().records
    seen = [("user:7", f"198.51.100.{n}") for n in range(30)] + [("user:8", "192.0.2.1")]
    records.add(Tally(sightings=seen))
    detect_at(this_minute())
    alert = Alert.objects.get()
    assert (alert.cause, alert.peak) == ("any ip_rotation: user:7", 30)
    assert len(alert.detail["seen"]) == 20
    for minute in range(this_minute(), this_minute() + 200, 20):
        detect_at(minute)
    assert Alert.objects.get().state == "closed"


@pytest.mark.parametrize(
    ("sensitivity", "addresses", "found"),
    [("low", 39, False), ("low", 40, True), ("normal", 20, True), ("high", 10, True)],
)
def test_a_rule_is_as_sensitive_to_addresses_as_staff_has_made_it(
    sensitivity: str, addresses: int, found: bool
) -> None:
    watch("ip_rotation", sensitivity=sensitivity, minimum_volume=20)
    seen = [("user:7", f"198.51.100.{n}") for n in range(addresses)]
    configured_store().records.add(Tally(sightings=seen))
    detect_at(this_minute())
    assert Alert.objects.exists() is found


def test_many_users_from_one_address_are_an_alert() -> None:
    watch("account_farming", minimum_volume=25)
    records = configured_store().records
    records.add(Tally(sightings=[(f"user:{n}", "192.0.2.1") for n in range(26)]))
    records.add(Tally(sightings=[(f"user:{n}", "192.0.2.2") for n in range(100, 120)]))
    detect_at(this_minute())
    assert Alert.objects.get().cause == "any account_farming: 192.0.2.1"


def test_an_office_is_told_of_once_and_again_when_it_is_three_times_as_many() -> None:
    watch("account_farming", minimum_volume=25)
    records = configured_store().records
    office = [(f"user:{n}", "192.0.2.1") for n in range(40)]
    records.add(Tally(sightings=office))
    detect_at(this_minute())
    Alert.objects.update(state="closed", closed_at=timezone.now() - timedelta(days=1))
    detect_at(this_minute() + 1)
    assert Alert.objects.get().state == "closed"
    records.add(Tally(sightings=[(f"user:{n}", "192.0.2.1") for n in range(120)]))
    detect_at(this_minute() + 2)
    assert Alert.objects.filter(state="open").get().peak == 120


def test_fewer_are_enough_when_their_accounts_are_new() -> None:
    watch("account_farming", minimum_volume=25)
    users = [User.objects.create_user(f"bot{n}") for n in range(10)]
    records = configured_store().records
    records.add(Tally(sightings=[(f"user:{user.pk}", "192.0.2.1") for user in users]))
    detect_at(this_minute())
    assert "new users" in Alert.objects.get().detail["explanation"]


@pytest.mark.parametrize(
    "pk", ["auth0|7", "6c1c0d4e-1111-4000-8000-0123456789ab", "9" * 30, "", "1.5", "\0"]
)
def test_users_that_only_a_token_knows_are_not_new(pk: str) -> None:
    watch("account_farming", minimum_volume=25)
    users = [User.objects.create_user(f"bot{n}") for n in range(10)]
    seen = [(f"user:{user.pk}", "192.0.2.1") for user in users]
    configured_store().records.add(Tally(sightings=[(f"user:{pk}", "192.0.2.1"), *seen]))
    detect_at(this_minute())
    assert Alert.objects.get().peak == 10


@pytest.mark.parametrize("kind", ["account_farming", "ip_rotation", "slow_drip"])
def test_however_many_are_judged_the_database_is_asked_as_often(kind: str) -> None:
    watch(kind, minimum_volume=10)
    end, queries = this_minute() - this_minute() % HOUR, []
    for most in (2, 60):
        for one in range(most):
            pairs = [(f"user:{one}", f"192.0.{one}.{n}") for n in range(10)]
            if kind == "account_farming":
                pairs = [(f"user:{1000 * one + n}", f"192.0.2.{one}") for n in range(4)]
            configured_store().records.add(Tally(sightings=pairs))
            at = moment((end - HOUR) * 60)
            usage = {"allowed": 95, "hourly_limit": 100}
            UsageCount.objects.get_or_create(hour=at, subject=f"user:{one}", defaults=usage)
        detect_at(this_minute())
        with CaptureQueriesContext(connection) as captured:
            detect_at(this_minute())
        queries.append(len(captured))
    assert queries[0] == queries[1]


def test_who_has_lost_the_lock_leaves_the_other_rules_and_the_notices_to_its_next_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("one", "two"):
        AlertRule.objects.create(name=name, kind="spike", emails="staff@example.com")
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    usual = detection._judge

    def judge_slowly(*arguments: Any) -> None:
        usual(*arguments)
        records: Any = configured_store().records
        records._command("DEL", records._lock_key(detection.LOCK))

    monkeypatch.setattr(detection, "_judge", judge_slowly)
    detect_at(START)
    assert Alert.objects.count() == 1
    assert mail.outbox == []


def test_a_rule_that_fails_is_logged_and_the_others_are_judged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch("slow_drip")
    watch()
    refuse_steadily(START - 60, START)
    refuse(START, 100)
    with fail("SELECT", UsageCount):
        detect_at(START)
    assert "the alert rule 'any slow_drip' could not be judged" in caplog.text
    assert Alert.objects.get().kind == "spike"


def test_a_subject_evenly_just_under_its_limit_for_hours_is_an_alert() -> None:
    watch("slow_drip")
    for hour in range(8):
        at = moment((START - 60 * hour) * 60)
        UsageCount.objects.create(hour=at, subject="user:9", allowed=950, hourly_limit=1000)
        UsageCount.objects.create(
            hour=at, subject="user:8", allowed=900 if hour % 2 else 700, hourly_limit=1000
        )
    detect_at(START + 60)
    alert = Alert.objects.get()
    assert (alert.kind, alert.cause) == ("slow_drip", "any slow_drip: user:9")


@pytest.mark.parametrize(
    ("sensitivity", "hours", "found"),
    [("low", 11, False), ("low", 12, True), ("normal", 5, False), ("high", 4, True)],
)
def test_a_rule_is_as_sensitive_to_drips_as_staff_has_made_it(
    sensitivity: str, hours: int, found: bool
) -> None:
    watch("slow_drip", sensitivity=sensitivity)
    drip(hours, 950, 1000)
    detect_at(START + 60)
    assert Alert.objects.exists() is found


def test_a_drip_below_a_limit_smaller_than_the_minimum_is_not_looked_at() -> None:
    watch("slow_drip", minimum_volume=101)
    drip(8, 95, 100)
    detect_at(START + 60)
    assert not Alert.objects.exists()


def drip(hours: int, allowed: int, limit: int) -> None:
    """Let one subject be allowed so much in each of the last hours."""
    for hour in range(hours):
        at = moment((START - 60 * hour) * 60)
        UsageCount.objects.create(hour=at, subject="u", allowed=allowed, hourly_limit=limit)


def test_a_day_quota_that_runs_short_is_told_once_for_each_mark_and_window() -> None:
    watch("near_limit")
    records = configured_store().records
    window = (START // DAY + 1) * DAY
    for used in (85, 90, 100, 100):
        records.add(Tally(quotas=[DayQuota("user:1", "free-day", 100, used, window)]))
        detect_at(START)
    causes = sorted(Alert.objects.values_list("cause", flat=True))
    assert [cause.split(" by ")[0] for cause in causes] == ["100% of free-day", "80% of free-day"]
    detect_at(window)
    assert set(Alert.objects.values_list("state", flat=True)) == {"closed"}
    assert list(records.quotas()) == []


def test_thousands_of_quotas_that_run_short_are_looked_up_together() -> None:
    watch("near_limit")
    records, window = configured_store().records, (START // DAY + 1) * DAY
    quotas = [DayQuota(f"user:{n}", "free-day", 100, 80 + n % 30, window) for n in range(600)]
    records.add(Tally(quotas=quotas))
    detect_at(START)
    assert Alert.objects.filter(cause__startswith="80% of").count() == 400
    assert Alert.objects.filter(cause__startswith="100% of").count() == 200
    with CaptureQueriesContext(connection) as captured:
        detect_at(START)
    assert len(captured) < 20
    assert Alert.objects.count() == 600


def test_a_quota_of_a_month_is_told_on_every_day_of_it() -> None:
    watch("near_limit")
    records = configured_store().records
    for day, used in ((3, 85), (20, 100), (25, 100)):
        month = DayQuota("user:1", "free-month", 100, used, START + 30 * DAY)
        records.add(Tally(quotas=[month]))
        detect_at(START + day * DAY)
    assert Alert.objects.count() == 2
    assert set(Alert.objects.values_list("state", flat=True)) == {"open"}


def test_a_farm_is_over_when_no_more_accounts_are_new_though_an_office_goes_on() -> None:
    watch("account_farming", minimum_volume=25)
    now = configured_store().records.now()
    hour = now // 3600 * 3600
    people = [f"user:{number}" for number in range(1000, 1012)]
    users = [User.objects.create_user(f"new {number}") for number in range(10)]
    User.objects.update(date_joined=moment(hour + 60))
    see(hour, [*people, *(f"user:{user.pk}" for user in users)])
    detect_anomalies(now=hour + 660)
    alert = Alert.objects.get()
    assert (alert.state, alert.peak) == ("open", 10)
    assert alert.detail["explanation"].startswith("At least 10 new users")
    for minute in range(20, 240, 10):
        see(hour + minute * 60, people)
        detect_anomalies(now=hour + minute * 60 + 665)
    alert.refresh_from_db()
    assert (alert.state, alert.peak) == ("closed", 10)


def see(at: int, subjects: list[str]) -> None:
    """Note who came from one network in the ten minutes from then on."""
    store: Any = configured_store()
    seen = f"{store.protocol.counts_key}:seen:{at // 600 * 600}"
    store.command("SADD", seen, *(f"{subject} 10.0.0.1" for subject in subjects))


def test_a_drip_that_lasts_for_days_is_told_every_day_and_says_so() -> None:
    watch("slow_drip", emails="staff@example.com")
    for hour in range(40):
        UsageCount.objects.create(
            hour=moment((START + hour * HOUR) * 60), subject="user:1", allowed=90, hourly_limit=100
        )
        detect_at(START + hour * HOUR + 70)
    assert [message.subject.partition(":")[0] for message in mail.outbox] == [
        "Alert",
        "Alert still going on",
        "Alert",
    ]
    assert "reported no more" not in mail.outbox[1].body
    assert "Still going on. If it lasts, there will be another alert." in mail.outbox[1].body
