from __future__ import annotations

import pytest

from django_ratelimit_tiers.core.webhooks import MOST_URL, Webhook, is_allowed, parse_webhook

LONGEST = "https://hooks.example.org/".ljust(MOST_URL, "x")


@pytest.mark.parametrize(
    ("url", "webhook"),
    [
        ("https://hooks.example.org", Webhook(True, "hooks.example.org", 443, "/")),
        ("HTTPS://Hooks.Example.org/A", Webhook(True, "hooks.example.org", 443, "/A")),
        ("http://chat:8080/hook?to=@ops#x", Webhook(False, "chat", 8080, "/hook?to=@ops")),
        ("http://my_chat/a%20b/caf%C3%A9", Webhook(False, "my_chat", 80, "/a%20b/caf%C3%A9")),
        ("http://10.0.0.7/", Webhook(False, "10.0.0.7", 80, "/")),
        ("http://[2001:db8::1]:81/", Webhook(False, "2001:db8::1", 81, "/")),
        ("https://m\u00fcnchen.example/", Webhook(True, "m\u00fcnchen.example", 443, "/")),
        (LONGEST, Webhook(True, "hooks.example.org", 443, LONGEST[25:])),
    ],
)
def test_a_webhook_is_a_host_a_port_and_what_is_asked_for(url, webhook):
    assert parse_webhook(url) == webhook


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("", "Write an http or https URL with a host"),
        ("hooks.example.org", "Write an http or https URL with a host"),
        ("ftp://hooks.example.org/", "Write an http or https URL with a host"),
        ("https:///hooks", "Write an http or https URL with a host"),
        ("https://a..b/", "Write an http or https URL with a host"),
        ("https://" + "a" * 64 + ".example/", "Write an http or https URL with a host"),
        ("https://a b/", "Write an http or https URL with a host"),
        ("https://a\\b/", "Write an http or https URL with a host"),
        ("https://hooks.example.org:0/", "Write an http or https URL with a host"),
        (LONGEST + "x", "of 500 characters at most"),
        ("https://hooks.example.org:99999/", "Port out of range 0-65535"),
        ("https://hooks.example.org:port/", "Port could not be cast"),
        ("https://[::1/", "Invalid IPv6 URL"),
        ("https://user:word@hooks.example.org/", "A user and a password are never sent"),
        ("https://@hooks.example.org/", "A user and a password are never sent"),
        ("https://hooks.example.org/a b", "as their bytes: %20"),
        ("https://hooks.example.org/\n", "as their bytes: %20"),
        ("https://hooks.example.org/caf\u00e9", "as their bytes: %20"),
        ("https://hooks.example.org/?to=caf\u00e9", "as their bytes: %20"),
        ("https://hooks.example.org/\x7f", "as their bytes: %20"),
        ("http://169.254.169.254/latest/", "169.254.169.254 is no address for a webhook"),
        ("http://[fe80::1%eth0]/", "fe80::1%eth0 is no address for a webhook"),
        ("http://[::ffff:169.254.169.254]/", "is no address for a webhook"),
        ("http://0.0.0.0:80/", "0.0.0.0 is no address for a webhook"),
        ("http://224.0.0.1/", "224.0.0.1 is no address for a webhook"),
    ],
)
def test_a_url_that_nothing_can_be_sent_to_is_refused_with_advice(url, advice):
    with pytest.raises(ValueError, match=r".") as refused:
        parse_webhook(url)
    assert advice in str(refused.value)


def test_a_webhook_may_be_in_a_network_of_the_site():
    assert is_allowed("10.0.0.7")
    assert is_allowed("127.0.0.1")
    assert is_allowed("2001:db8::1")
