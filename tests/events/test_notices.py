"""Each notice goes out once, whatever fails or dies, and tells receivers who sent it."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import django
import pytest
from django.core import mail

from django_ratelimit_tiers.core.alerts import AlertEvent
from django_ratelimit_tiers.events import notices, webhooks
from django_ratelimit_tiers.events.notices import (
    MOST_ATTEMPTS,
    prepare_notices,
    send_notices,
    signature,
)
from django_ratelimit_tiers.events.webhooks import (
    WebhookFailed,
    WebhookRefused,
    post,
)
from django_ratelimit_tiers.models import Alert, AlertNotice, AlertRule

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Receiver(ThreadingHTTPServer):
    """A webhook that keeps what it was sent, and answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.location = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?to=ops"


class _Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((dict(self.headers), content))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def alert(detail: dict[str, Any] | None = None, **rule: Any) -> Alert:
    rule = {"emails": "", "webhook_url": ""} | rule
    found = AlertRule.objects.create(name="any spike", kind="spike", **rule)
    raised = Alert.objects.create(
        kind="spike",
        cause="any spike",
        rule=found,
        opened_at=NOW,
        last_seen_at=NOW,
        peak=120,
        baseline=5,
        detail=detail or {"explanation": "120 is a lot.", "top subjects": ["user:1 (100)"]},
    )
    prepare_notices(raised, AlertEvent.OPENED)
    return raised


def states() -> dict[str, str]:
    return dict(AlertNotice.objects.values_list("target", "state"))


def test_everybody_named_by_the_rule_or_the_settings_gets_one_mail(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"RECIPIENTS": ["b@example.com", "c@example.com"]}}
    raised = alert(emails="a@example.com\nb@example.com")
    prepare_notices(raised, AlertEvent.OPENED)
    assert send_notices(now=NOW) == 3
    assert send_notices(now=NOW) == 0
    assert sorted(m.to[0] for m in mail.outbox) == [f"{n}@example.com" for n in "abc"]
    assert set(states().values()) == {"sent"}


def test_a_mail_says_what_was_seen_and_what_is_usual() -> None:
    alert(emails="a@example.com")
    send_notices(now=NOW)
    [message] = mail.outbox
    assert message.subject == "Alert: any spike"
    assert "120 is a lot." in message.body
    assert "Peak 120, usual 5." in message.body
    assert "top subjects: user:1 (100)" in message.body


def test_a_mail_says_when_it_was_over() -> None:
    alert(emails="a@example.com")
    Alert.objects.update(state="closed", closed_at=NOW + timedelta(minutes=7))
    AlertNotice.objects.update(event="closed")
    send_notices(now=NOW)
    [message] = mail.outbox
    assert message.subject == "Alert over: any spike"
    assert "\nSince 2026-03-01 12:00 UTC.\n" in message.body
    assert "\nOver since 2026-03-01 12:07 UTC.\n" in message.body


def test_hostile_names_cannot_break_out_of_a_mail() -> None:
    raised = alert({"top endpoints": ["GET /\r\nBcc: x@example.com\x1b[2J (1)"]}, emails="a@b.com")
    Alert.objects.filter(pk=raised.pk).update(cause="any spike: \nBcc: x@example.com")
    send_notices(now=NOW)
    [message] = mail.outbox
    assert "\n" not in message.subject
    assert "\x1b" not in message.body
    assert message.recipients() == ["a@b.com"]


def test_a_webhook_gets_json_with_a_text(receiver: Receiver) -> None:
    raised = alert(webhook_url=receiver.url)
    send_notices(now=NOW)
    [(headers, content)] = receiver.received
    body = json.loads(content)
    assert headers["Content-Type"] == "application/json"
    assert body["text"].startswith("Alert: any spike\n")
    assert (body["event"], body["alert"]["id"], body["alert"]["peak"]) == ("opened", raised.pk, 120)
    assert headers["X-RateLimit-Notice"] == str(body["id"])
    assert "X-RateLimit-Signature" not in headers


def test_a_webhook_can_check_who_sent_it(receiver: Receiver) -> None:
    alert(webhook_url=receiver.url, webhook_secret="shared secret")
    send_notices(now=NOW)
    [(headers, content)] = receiver.received
    at, _, value = headers["X-RateLimit-Signature"].partition(",v1=")
    signed = at.removeprefix("t=").encode() + b"." + content
    assert value == hmac.new(b"shared secret", signed, hashlib.sha256).hexdigest()
    assert signature("shared secret", int(at[2:]), content) == headers["X-RateLimit-Signature"]


def test_the_secret_of_the_site_signs_what_goes_to_its_own_webhook_alone(
    receiver: Receiver, settings: Any
) -> None:
    own, other = receiver.url, receiver.url + "&as=other"
    settings.RATELIMIT_TIERS = {"EVENTS": {"WEBHOOK": own, "WEBHOOK_SECRET": "site"}}
    raised = alert()
    AlertNotice.objects.create(alert=raised, event="opened", channel="webhook", target=other)
    assert send_notices(now=NOW) == 2
    (to_own, content), (to_other, _) = receiver.received
    signed = signature("site", int(NOW.timestamp()), content)
    assert to_own["X-RateLimit-Signature"] == signed
    assert "X-RateLimit-Signature" not in to_other


def test_a_rule_without_a_secret_leaves_the_site_s_own_webhook_signed(
    receiver: Receiver, settings: Any
) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"WEBHOOK": receiver.url, "WEBHOOK_SECRET": "site"}}
    alert(webhook_url=receiver.url)
    assert send_notices(now=NOW) == 1
    [(headers, content)] = receiver.received
    assert headers["X-RateLimit-Signature"] == signature("site", int(NOW.timestamp()), content)


def test_the_secret_of_a_rule_signs_what_goes_to_its_own_webhook_alone(
    receiver: Receiver, settings: Any
) -> None:
    own, site = receiver.url, receiver.url + "&as=site"
    settings.RATELIMIT_TIERS = {"EVENTS": {"WEBHOOK": site, "WEBHOOK_SECRET": ""}}
    alert(webhook_url=own, webhook_secret="of the rule")
    assert send_notices(now=NOW) == 2
    (to_own, content), (to_site, _) = receiver.received
    signed = signature("of the rule", int(NOW.timestamp()), content)
    assert to_own["X-RateLimit-Signature"] == signed
    assert "X-RateLimit-Signature" not in to_site


def test_names_are_no_commands_for_a_chat(receiver: Receiver) -> None:
    alert(
        {"top endpoints": ["GET <!channel> & <https://evil.example|here>"]},
        webhook_url=receiver.url,
    )
    send_notices(now=NOW)
    text = json.loads(receiver.received[0][1])["text"]
    assert "GET &lt;!channel&gt; &amp; &lt;https" in text


def test_a_webhook_that_fails_is_tried_again_later_and_not_in_the_same_run(
    receiver: Receiver,
) -> None:
    alert(webhook_url=receiver.url)
    receiver.status = 503
    assert send_notices(now=NOW) == 0
    assert send_notices(now=NOW + timedelta(seconds=59)) == 0
    assert len(receiver.received) == 1
    receiver.status = 200
    assert send_notices(now=NOW + timedelta(seconds=60)) == 1
    assert len(receiver.received) == 2
    assert states() == {receiver.url: "sent"}
    notice = AlertNotice.objects.get()
    assert (notice.error, notice.next_attempt_at, notice.attempts) == ("", None, 2)


def test_after_so_many_attempts_a_notice_has_failed(receiver: Receiver) -> None:
    alert(webhook_url=receiver.url)
    receiver.status = 503
    for hour in range(2 * MOST_ATTEMPTS):
        send_notices(now=NOW + timedelta(hours=hour))
    notice = AlertNotice.objects.get()
    assert (notice.state, notice.attempts) == ("failed", MOST_ATTEMPTS)
    assert "503" in notice.error
    assert len(receiver.received) == MOST_ATTEMPTS


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404])
def test_a_refusal_or_redirect_is_final_and_never_followed(receiver: Receiver, status: int) -> None:
    alert(webhook_url=receiver.url)
    receiver.status, receiver.location = status, receiver.url
    send_notices(now=NOW)
    send_notices(now=NOW + timedelta(days=1))
    assert len(receiver.received) == 1
    assert states() == {receiver.url: "failed"}


def test_a_mail_server_that_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(notices, "MAIL_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        send_by(settings, *silent.getsockname())
        alert(emails="a@example.com")
        assert send_notices(now=NOW) == 0
    notice = AlertNotice.objects.get()
    assert notice.state == "pending"
    assert notice.error.endswith("timed out")
    assert socket.getdefaulttimeout() is None


def test_a_site_that_waits_for_no_longer_than_it_says_goes_on_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float | None] = []
    monkeypatch.setattr(notices, "send_mail", lambda *_: waits.append(socket.getdefaulttimeout()))
    socket.setdefaulttimeout(3)
    try:
        alert(emails="a@example.com")
        assert send_notices(now=NOW) == 1
        assert (waits, socket.getdefaulttimeout()) == ([3], 3)
    finally:
        socket.setdefaulttimeout(None)


def send_by(settings: Any, host: str, port: int) -> None:
    """Let Django send mail by a server, as a site of its version says so."""
    backend = "django.core.mail.backends.smtp.EmailBackend"
    if django.VERSION >= (6, 1):
        options = {"host": host, "port": port}
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options}}
    else:
        settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = backend, host, port


def test_a_run_that_took_too_long_leaves_the_rest_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alert(emails="a@example.com")
    with monkeypatch.context() as patched:
        patched.setattr(notices, "SECONDS_AT_ONCE", 0)
        assert send_notices(now=NOW) == 0
    assert states() == {"a@example.com": "pending"}
    assert send_notices(now=NOW) == 1


def test_what_was_never_tried_is_sent_first(receiver: Receiver) -> None:
    receiver.status = 500
    first = alert(webhook_url=receiver.url)
    send_notices(now=NOW)
    receiver.status = 200
    AlertNotice.objects.create(alert=first, event="closed", channel="webhook", target=receiver.url)
    send_notices(now=NOW + timedelta(minutes=2))
    told = [json.loads(content)["event"] for _, content in receiver.received]
    assert told == ["opened", "closed", "opened"]


def test_an_attack_is_told_before_daily_limits_however_many_ran_short() -> None:
    quotas = AlertRule.objects.create(name="quotas", kind="near_limit", emails="a@example.com")
    for number in range(notices.AT_ONCE):
        alert_of_quota = Alert.objects.create(
            kind="near_limit",
            cause=f"80% of free-day by user:{number}",
            rule=quotas,
            opened_at=NOW,
            last_seen_at=NOW,
        )
        prepare_notices(alert_of_quota, AlertEvent.OPENED)
    alert(emails="b@example.com")
    assert send_notices(now=NOW) == notices.AT_ONCE
    assert mail.outbox[0].to == ["b@example.com"]


def test_no_secret_of_a_target_is_logged(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    raised = alert(webhook_url=receiver.url)
    send_notices(now=NOW)
    [notice] = raised.notices.all()
    [record] = caplog.records
    assert record.getMessage() == f"notice {notice.pk} by webhook failed: WebhookFailed"


def test_a_webhook_that_trickles_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "DEADLINE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=[server])
        thread.start()
        with pytest.raises(WebhookFailed):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        thread.join()


def trickle(server: socket.socket) -> None:
    """Answer one byte at a time, of a line that never ends, for at most 20 seconds."""
    connection, _ = server.accept()
    with connection, suppress(OSError):
        for _ in range(400):
            connection.sendall(b"x")
            time.sleep(0.05)


def test_a_webhook_whose_name_is_found_too_late_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "DEADLINE", 0.2)
    found = resolving("chat.example", [(2, 1, 6, "", ("127.0.0.1", 0))])

    def find_late(host: str, *args: Any, **options: Any) -> Any:
        time.sleep(0.4 if host == "chat.example" else 0)
        return found(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find_late)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(WebhookFailed, match="took too long to connect"):
            post(f"http://chat.example:{server.getsockname()[1]}/", b"{}", {})
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()


def test_many_addresses_where_nobody_answers_are_tried_no_longer_than_one_webhook_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "DEADLINE", 0.5)
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.3)
    found = [(2, 1, 6, "", (f"127.0.0.{number}", 0)) for number in range(1, 40)]
    monkeypatch.setattr(socket, "getaddrinfo", resolving("chat.example", found))

    def hang(_: Any, timeout: float) -> socket.socket:
        time.sleep(timeout)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    started = time.monotonic()
    with pytest.raises(WebhookFailed):
        post("http://chat.example/", b"{}", {})
    assert time.monotonic() - started < 5


def test_a_webhook_is_found_at_whichever_of_its_addresses_listens(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(2, 1, 6, "", (address, 0)) for address in ("::1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", resolving("chat.example", found))
    post(f"http://chat.example:{receiver.server_port}/", b"{}", {})
    assert len(receiver.received) == 1


def test_a_name_with_one_address_that_is_no_webhook_s_is_not_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(2, 1, 6, "", (address, 0)) for address in ("127.0.0.1", "169.254.169.254")]
    monkeypatch.setattr(socket, "getaddrinfo", resolving("chat.example", found))
    with pytest.raises(WebhookRefused, match=r"169\.254\.169\.254 is no address"):
        post(f"http://chat.example:{receiver.server_port}/", b"{}", {})
    assert receiver.received == []


def test_nothing_is_sent_to_a_webhook_that_was_given_up_while_it_was_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = webhooks._Connection._connect_to_one

    def take_long(connection: Any, addresses: Any) -> socket.socket:
        plain = usual(connection, addresses)
        connection._end = time.monotonic()
        return plain

    monkeypatch.setattr(webhooks._Connection, "_connect_to_one", take_long)
    with pytest.raises(WebhookFailed, match="too long to connect"):
        post(receiver.url, b"{}", {})
    assert receiver.received == []


def resolving(name: str, found: list[Any]) -> Any:
    """Return a `getaddrinfo` that knows one more name."""
    usual = socket.getaddrinfo
    return lambda host, *args, **options: found if host == name else usual(host, *args, **options)


def test_one_target_that_fails_keeps_nobody_else_waiting(receiver: Receiver) -> None:
    receiver.status = 500
    alert(webhook_url=receiver.url, emails="a@example.com")
    assert send_notices(now=NOW) == 1
    assert states() == {receiver.url: "pending", "a@example.com": "sent"}


def test_a_notice_whose_sender_died_is_not_sent_again() -> None:
    alert(emails="a@example.com")
    AlertNotice.objects.update(state="sending", attempts=1)
    send_notices(now=NOW + timedelta(days=1))
    assert mail.outbox == []
    assert states() == {"a@example.com": "sending"}


def test_a_long_error_is_cut_to_what_the_database_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(message: Any, **_: Any) -> int:
        raise OSError("x" * 1000)

    monkeypatch.setattr("django.core.mail.EmailMessage.send", send)
    alert(emails="a@example.com")
    send_notices(now=NOW)
    error = AlertNotice.objects.get().error
    assert len(error) == AlertNotice._meta.get_field("error").max_length


def test_a_mail_is_marked_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    alert(emails="a@example.com")
    seen: list[str] = []

    def send(message: Any, **_: Any) -> int:
        seen.append(AlertNotice.objects.get().state)
        raise SystemExit  # as a worker that is told to end

    monkeypatch.setattr("django.core.mail.EmailMessage.send", send)
    with pytest.raises(SystemExit):
        send_notices(now=NOW)
    assert seen == ["sending"]
    assert states() == {"a@example.com": "sending"}


def test_what_another_run_sends_meanwhile_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alert(emails="a@example.com\nb@example.com")
    usual, others = mail.EmailMessage.send, list[int]()

    def send(message: Any, **options: Any) -> int:
        others.append(send_notices(now=NOW))
        return usual(message, **options)

    monkeypatch.setattr("django.core.mail.EmailMessage.send", send)
    assert send_notices(now=NOW) == 1
    assert others == [0, 1]
    assert sorted(m.to[0] for m in mail.outbox) == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "http:///nothing",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://127.0.0.1:99999999/",
    ],
)
def test_a_webhook_is_only_where_one_may_be(url: str) -> None:
    with pytest.raises(WebhookRefused):
        post(url, b"{}", {})


def test_a_webhook_that_is_not_there_is_tried_again(receiver: Receiver) -> None:
    alert(webhook_url="http://127.0.0.1:9/")
    send_notices(now=NOW)
    notice = AlertNotice.objects.get()
    assert (notice.state, notice.next_attempt_at) == ("pending", NOW + timedelta(minutes=1))
