from __future__ import annotations

import ipaddress

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.models import EndpointRule, ServiceAccount, Tier, TierAssignment
from django_ratelimit_tiers.models.fields import EmailsField, MethodsField, NetworksField

NETWORKS = NetworksField()
METHODS = MethodsField()


@pytest.mark.django_db
def test_a_raw_key_is_stored_and_read_back_as_its_digest(tier):
    assignment = TierAssignment.objects.create(api_key="k1", tier=tier)
    assert assignment.api_key == key_digest("k1")
    assert TierAssignment.objects.values_list("api_key", flat=True).get() == key_digest("k1")


@pytest.mark.django_db
def test_an_assignment_is_found_by_its_raw_key_and_by_its_digest(tier):
    assignment = TierAssignment.objects.create(api_key="k1", tier=tier)
    assert TierAssignment.objects.get(api_key="k1") == assignment
    assert TierAssignment.objects.get(api_key=key_digest("k1")) == assignment
    assert TierAssignment.objects.get(api_key__in=["k0", "k1"]) == assignment


@pytest.mark.django_db
def test_lists_are_stored_as_the_text_that_staff_would_type():
    known = {"name": "m", "owner": "o", "reason": "r"}
    account = ServiceAccount.objects.create(networks=["192.0.2.7", "2001:db8::/64"], **known)
    rule = EndpointRule.objects.create(name="r", path="/r/", methods=("get", "post"))
    assert account.networks == "192.0.2.7/32\n2001:db8::/64"
    assert rule.methods == "GET,POST"
    with pytest.raises(ValidationError):
        ServiceAccount.objects.create(networks=["192.0.2.7", None], **known)


@pytest.mark.django_db
def test_a_digest_is_not_digested_again(tier):
    assignment = TierAssignment.objects.create(api_key=key_digest("k1"), tier=tier)
    assignment.save()
    assert assignment.api_key == key_digest("k1")


@pytest.mark.django_db
@pytest.mark.parametrize("write", ["bulk_create", "update", "bulk_update"])
def test_no_write_path_stores_a_raw_key(tier, write):
    assignment = TierAssignment(api_key="k0", tier=tier)
    TierAssignment.objects.bulk_create([assignment])
    if write == "update":
        TierAssignment.objects.update(api_key="k0")
    if write == "bulk_update":
        assignment.api_key = "k0"
        TierAssignment.objects.bulk_update([assignment], ["api_key"])
    assert TierAssignment.objects.values_list("api_key", flat=True).get() == key_digest("k0")


@pytest.mark.django_db
def test_an_empty_key_is_no_key(tier):
    assignment = TierAssignment(api_key="", tier=tier)
    with pytest.raises(ValidationError, match="exactly one"):
        assignment.full_clean()


@pytest.mark.django_db
def test_a_long_raw_key_passes_validation(tier):
    TierAssignment(api_key="k" * 200, tier=tier).full_clean()


@given(st.lists(st.ip_addresses(), max_size=5), st.sampled_from([" ", ",", "\n", " ,\r\n"]))
def test_written_networks_read_back_the_same(addresses, separator):
    once = NETWORKS.to_python(separator.join(map(str, addresses)))
    assert NETWORKS.to_python(once) == once
    for network in once.split():
        assert ipaddress.ip_network(network)


@given(st.text(max_size=50))
def test_any_text_is_networks_or_a_validation_error(text):
    try:
        networks = NETWORKS.to_python(text)
    except ValidationError:
        return
    assert all(ipaddress.ip_network(network) for network in networks.split())


def test_host_bits_are_refused_and_the_right_network_is_named():
    with pytest.raises(ValidationError, match=r"did you mean 192\.0\.2\.0/24\?"):
        NETWORKS.to_python("192.0.2.7/24")


@pytest.mark.parametrize("everywhere", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_a_network_of_every_address_is_refused(everywhere):
    with pytest.raises(ValidationError, match="covers every address"):
        NETWORKS.to_python(everywhere)


def test_a_mapped_network_is_the_ipv4_network_that_clients_are_known_by():
    assert NETWORKS.to_python("::ffff:192.0.2.0/120") == "192.0.2.0/24"


def test_a_single_address_is_a_network_of_one():
    assert NETWORKS.to_python("192.0.2.7, 2001:DB8::1") == "192.0.2.7/32\n2001:db8::1/128"


@pytest.mark.django_db
def test_wrong_networks_are_refused_by_every_write_path():
    account = ServiceAccount(name="backup", owner="ops", reason="nightly", networks="office")
    with pytest.raises(ValidationError, match="is not a network"):
        account.save()
    with pytest.raises(ValidationError, match="is not a network"):
        ServiceAccount.objects.bulk_create([account])
    with pytest.raises(ValidationError, match="is not a network"):
        ServiceAccount.objects.update(networks="office")


def test_methods_are_written_one_way():
    assert METHODS.to_python(" post, get GET") == "GET,POST"
    assert METHODS.to_python("") == ""


@pytest.mark.parametrize("wrong", ["G3T", "GET;POST", "*", "\uff27ET", "po\u017ft"])
def test_what_is_no_method_is_refused(wrong):
    with pytest.raises(ValidationError, match="is not an HTTP method"):
        METHODS.to_python(wrong)


@pytest.mark.django_db
def test_methods_read_back_in_capitals():
    rule = EndpointRule.objects.create(name="login", path="/login", methods="post")
    assert rule.methods == "POST"


def test_addresses_that_are_no_e_mail_addresses_are_refused():
    with pytest.raises(ValidationError):
        EmailsField().to_python("ops@example.com, ops")


@pytest.mark.django_db
@pytest.mark.parametrize("alike", ["Gold", "gölD", "göld ", "gold"])
def test_slugs_that_differ_in_one_character_are_slugs_of_different_tiers(alike):
    Tier.objects.create(slug="göld", name="Gold")
    Tier.objects.create(slug=alike, name="Gold")
    assert Tier.objects.get(slug=alike).slug == alike


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("lookup", "text"),
    [
        ("slug__icontains", "OL"),
        ("slug__iexact", "GOLD"),
        ("slug__istartswith", "Go"),
        ("slug__iendswith", "Ld"),
        ("default_for__iexact", "Unverified"),
    ],
)
def test_a_tier_is_searched_in_letters_of_either_case(lookup, text):
    Tier.objects.create(slug="gold", name="Gold", default_for="unverified")
    assert Tier.objects.get(**{lookup: text}).slug == "gold"
