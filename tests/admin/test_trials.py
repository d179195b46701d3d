"""The pages that ask about a request and replay a log."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest
from django.test import Client, modify_settings, override_settings

from django_ratelimit_tiers.admin import trials
from django_ratelimit_tiers.models import EndpointRule, PolicyRevision, ServiceAccount, Tier
from django_ratelimit_tiers.policy.previews import Enquiry, preview
from tests.admin.conftest import allowed, page
from tests.policies import limit_tier, make_rule

pytestmark = pytest.mark.django_db

LINE = '192.0.2.7 - - [17/May/2015:10:05:00 +0000] "GET /api/search/ HTTP/1.1" 200 1\n'


def uploaded(text: str | bytes, name: str = "access.log") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, text if isinstance(text, bytes) else text.encode())


def replayed(browser: Client, log: Any, **fields: Any) -> list[str]:
    response = browser.post(page("endpointrule_replay"), {"log": log, **fields})
    assert response.context["form"].errors == {}
    return list(response.context["lines"])


def wrong(browser: Client, log: Any, **fields: Any) -> dict[str, list[str]]:
    response = browser.post(page("endpointrule_replay"), {"log": log, **fields})
    assert response.context["lines"] == []
    return dict(response.context["form"].errors)


@pytest.fixture
def somebody(client: Client) -> Iterator[Client]:
    """A browser of somebody who may look at rules, and at nothing else."""
    return allowed(client, "view_endpointrule")


def test_the_list_of_rules_leads_to_both_pages(staff: Client) -> None:
    text = staff.get(page("endpointrule_changelist")).content.decode()
    for name in ("endpointrule_preview", "endpointrule_replay"):
        assert f'href="{page(name)}"' in text
        assert staff.get(page(name)).status_code == 200


def test_who_may_only_look_finds_only_the_page_that_asks(somebody: Client) -> None:
    text = somebody.get(page("endpointrule_changelist")).content.decode()
    assert f'href="{page("endpointrule_preview")}"' in text
    assert page("endpointrule_replay") not in text
    assert somebody.get(page("endpointrule_preview")).status_code == 200
    assert somebody.get(page("endpointrule_replay")).status_code == 403


def test_nobody_else_finds_any(client: Client) -> None:
    browser = allowed(client, "view_tier")
    for name in ("endpointrule_preview", "endpointrule_replay"):
        assert browser.get(page(name)).status_code == 403
        assert Client().get(page(name)).status_code == 302


def test_it_tells_what_a_request_would_be_charged(staff: Client) -> None:
    make_rule("search", 5, path="/api/search/")
    asked = {"method": "GET", "path": "/api/search/", "address": "192.0.2.7", "user": "admin"}
    response = staff.get(page("endpointrule_preview"), asked)
    assert response.context["lines"] == preview(Enquiry(**asked))
    assert "(rule “search”) allows ip:192.0.2.7 5 per" in response.content.decode()


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("path", "api/", "A path begins with a slash."),
        ("address", "nowhere", "Enter a valid IPv4 or IPv6 address."),
        ("method", "BREW", "Select a valid choice. BREW is not one of the available choices."),
    ],
)
def test_it_says_what_is_wrong_with_the_question(
    staff: Client, field: str, value: str, why: str
) -> None:
    asked = {"method": "GET", "path": "/", "address": "192.0.2.7", field: value}
    response = staff.get(page("endpointrule_preview"), asked)
    assert response.context["form"].errors == {field: [why]}
    assert response.context["lines"] == []


def test_who_may_not_see_users_does_not_learn_which_there_are(somebody: Client) -> None:
    User.objects.create_user("anna")
    asked = {"method": "GET", "path": "/api/search/", "address": "192.0.2.7", "user": "anna"}
    response = somebody.get(page("endpointrule_preview"), asked)
    assert "user" not in response.context["form"].fields
    assert "The client is ip:192.0.2.7." in response.context["lines"]
    staff = User.objects.get(username="somebody")
    staff.user_permissions.add(Permission.objects.get(codename="view_user"))
    response = somebody.get(page("endpointrule_preview"), asked)
    assert any(line.startswith("The client is user:") for line in response.context["lines"])


def test_who_may_not_see_service_accounts_does_not_learn_their_names(somebody: Client) -> None:
    ServiceAccount.objects.create(name="Partner", owner="Ops", reason="x", networks="192.0.2.0/24")
    asked = {"method": "GET", "path": "/api/search/", "address": "192.0.2.7"}
    response = somebody.get(page("endpointrule_preview"), asked)
    assert "No limit applies: it is exempt by a service account." in response.context["lines"]
    staff = User.objects.get(username="somebody")
    staff.user_permissions.add(Permission.objects.get(codename="view_serviceaccount"))
    response = somebody.get(page("endpointrule_preview"), asked)
    assert "No limit applies: it is exempt by service account Partner." in response.context["lines"]


def test_who_may_not_see_users_replays_no_log(client: Client) -> None:
    browser = allowed(client, "change_endpointrule")
    assert browser.post(page("endpointrule_replay"), {"log": uploaded(LINE)}).status_code == 403
    assert (
        page("endpointrule_replay")
        not in browser.get(page("endpointrule_changelist")).content.decode()
    )
    staff = User.objects.get(username="somebody")
    staff.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert replayed(browser, uploaded(LINE))[0].startswith("1 request")


def test_the_numbers_of_limits_are_in_english_as_the_text_is(staff: Client) -> None:
    limit_tier("anonymous", {"requests": 1000, "period": 60})
    asked = {"method": "GET", "path": "/", "address": "192.0.2.7"}
    with override_settings(LANGUAGE_CODE="de"):
        told = staff.get(page("endpointrule_preview"), asked).context["lines"]
        report = replayed(staff, uploaded(1001 * LINE))
    assert any("1,000 per minute" in line for line in told)
    assert any("anonymous-minute: 1,000 per minute" in line for line in report)


def test_the_address_that_is_asked_about_first_is_the_own_one(staff: Client) -> None:
    with override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": ["10.0.0.0/8"]}):
        proxied = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.9"}
        response = staff.get(page("endpointrule_preview"), **proxied)
    assert response.context["form"].initial["address"] == "198.51.100.9"


def failing(request: HttpRequest) -> str:
    return str(request.session["tier"])


def test_a_function_of_the_site_that_fails_is_told(staff: Client) -> None:
    asked = {"method": "GET", "path": "/api/search/", "address": "192.0.2.7"}
    with override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": f"{__name__}.failing"}):
        response = staff.get(page("endpointrule_preview"), asked)
        [told] = response.context["form"].non_field_errors()
        assert told.startswith("It cannot be decided: AttributeError(")
        [told] = wrong(staff, uploaded(LINE))["__all__"]
        assert told.startswith("GET /api/search/ of 192.0.2.7 cannot be replayed: AttributeError(")


def test_a_store_that_is_away_is_told(staff: Client) -> None:
    away = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": "redis://127.0.0.1:1/0"},
    }
    asked = {"method": "GET", "path": "/", "address": "192.0.2.7"}
    with override_settings(RATELIMIT_TIERS=away):
        response = staff.get(page("endpointrule_preview"), asked)
        assert response.context["form"].non_field_errors() == ["The store does not answer."]
        assert replayed(staff, uploaded(LINE))[0].startswith("1 request from 1 client")


def test_a_log_is_replayed_with_changes(staff: Client) -> None:
    limit_tier("anonymous", {"requests": 3, "period": 60})
    rule = make_rule("search", {"requests": 1, "period": 60}, path="/api/search/", mode="off")
    log = 4 * LINE
    assert "refused requests             1" in replayed(staff, uploaded(log))
    packed = uploaded(gzip.compress(log.encode()), "access.log.gz")
    enforced = replayed(staff, packed, enforce=[rule.pk])
    assert "refused requests             1           3" in enforced
    lowered = replayed(staff, uploaded(log), limits="\n  anonymous-minute=2  \n\n")
    assert "refused requests             1           2" in lowered
    Tier.objects.filter(slug="anonymous").update(mode="shadow")
    edits = PolicyRevision.objects.count()
    tiers = [Tier.objects.get(slug="anonymous").pk]
    assert "refused requests             0           1" in replayed(
        staff, uploaded(log), tiers=tiers
    )
    assert PolicyRevision.objects.count() == edits
    assert EndpointRule.objects.get().mode == "off"


def test_only_what_is_not_enforced_can_be_tried(staff: Client) -> None:
    assert list(staff.get(page("endpointrule_replay")).context["form"].fields) == ["log", "limits"]
    rule = make_rule("tried", 1, path="/api/search/", mode="shadow")
    make_rule("enforced", 1, path="/api/search/")
    Tier.objects.filter(slug="free").update(mode="shadow")
    fields = staff.get(page("endpointrule_replay")).context["form"].fields
    assert list(fields["enforce"].queryset) == [rule]
    assert [tier.slug for tier in fields["tiers"].queryset] == ["free"]


def test_what_could_not_be_read_is_told_below_the_report(staff: Client) -> None:
    told = replayed(staff, uploaded(f"{LINE}<script>\n"))
    assert told[-1].startswith("1 line was skipped; the first is line 2 of access.log: ")


def test_a_long_log_is_replayed_as_far_as_there_is_time(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST_SECONDS", 0.5)
    log = uploaded(gzip.compress(LINE.encode() * 500_000), "access.log.gz")
    told = replayed(staff, log)
    assert int(told[0].split()[0].replace(",", "")) < 500_000
    assert told[-1] == (
        "This is what 0.5 seconds were enough for; manage.py ratelimit_replay reads all of a long "
        "log."
    )


@pytest.mark.parametrize(
    ("log", "fields", "why"),
    [
        ("hello\n", {}, {"__all__": "The log tells of no request. 1 line was skipped; "}),
        (LINE, {"limits": "none=1"}, {"__all__": "No limit has the name 'none'; there are "}),
        (LINE, {"limits": "a"}, {"limits": "'a' is no limit such as free-minute=30 or "}),
        (LINE, {"enforce": [0]}, {"enforce": "Select a valid choice. 0 is not one of "}),
        (LINE, {"limits": "anonymous-minute=0"}, {"__all__": "policy 'anonymous-minute': requ"}),
    ],
)
def test_it_says_what_is_wrong_with_a_trial(
    staff: Client, log: str, fields: dict[str, Any], why: dict[str, str]
) -> None:
    make_rule("tried", 1, path="/api/search/", mode="off")
    told = wrong(staff, uploaded(log), **fields)
    assert {name: text[: len(why[name])] for name, [text] in told.items()} == why


def test_a_file_that_cannot_be_unpacked_is_told(staff: Client) -> None:
    [told] = wrong(staff, uploaded("no gzip", "access.log.gz"))["log"]
    assert told.startswith("It cannot be read: Not a gzipped file")


def test_a_second_admin_site_leads_to_its_own_pages(staff: Client) -> None:
    text = staff.get("/ops/django_ratelimit_tiers/endpointrule/preview/").content.decode()
    assert 'href="/ops/django_ratelimit_tiers/endpointrule/"' in text
    assert "/admin/" not in text.replace("/static/admin/", "")


def test_hostile_text_is_inert(staff: Client) -> None:
    line = LINE.replace("/api/search/", "/<script>alert(1)</script>")
    limit_tier("anonymous", {"requests": 1, "period": 60})
    response = staff.post(page("endpointrule_replay"), {"log": uploaded(3 * line)})
    assert b"<script>alert" not in response.content


@pytest.mark.parametrize("name", ["endpointrule_preview", "endpointrule_replay"])
def test_a_page_tells_the_way_to_it_as_django_does(staff, name):
    pages = [staff.get(page(one)).content.decode() for one in ("endpointrule_changelist", name)]
    own, other = (re.search(r"<(\w+) class=.breadcrumbs", text) for text in pages)
    assert own[1] == other[1]


@pytest.mark.parametrize("name", ["endpointrule_preview", "endpointrule_replay", "tier_add"])
def test_a_page_has_no_style_that_a_content_security_policy_would_refuse(staff, name):
    text = staff.get(page(name)).content.decode()
    assert "<style" not in text
    [address] = re.findall(r"[^\"]*/(django_ratelimit_tiers/admin.css)", text)
    assert finders.find(address)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django's own pages name no nonce yet")
@modify_settings(MIDDLEWARE={"append": "django.middleware.csp.ContentSecurityPolicyMiddleware"})
def test_styles_have_the_nonce_that_a_policy_asks_for(staff: Client) -> None:
    [template] = settings.TEMPLATES
    processors = [
        *template["OPTIONS"]["context_processors"],
        "django.template.context_processors.csp",
    ]
    templates = [{**template, "OPTIONS": {"context_processors": processors}}]
    rule = make_rule("search", path="/api/search/")
    with override_settings(TEMPLATES=templates, SECURE_CSP={"style-src": ["<CSP_NONCE_SENTINEL>"]}):
        for address in (page("endpointrule_preview"), page("endpointrule_change", rule.pk)):
            response = staff.get(address)
            links = re.findall(r'<link[^>]*rel="stylesheet"[^>]*>', response.content.decode())
            [nonce] = re.findall("'nonce-([^']+)'", response["Content-Security-Policy"])
            assert links
            assert [link for link in links if f'nonce="{nonce}"' not in link] == []
