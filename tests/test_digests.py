from __future__ import annotations

import hashlib
import hmac

from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.digests import DIGEST, key_digest, key_digests


@given(st.text())
def test_any_key_has_a_digest_of_one_form(raw):
    assert DIGEST.match(key_digest(raw))


@given(st.text(), st.text())
def test_different_keys_have_different_digests(one, other):
    assert (key_digest(one) == key_digest(other)) == (one == other)


def test_a_digest_is_the_same_for_ever_since_it_is_stored():
    with override_settings(SECRET_KEY="secret"):
        key = hashlib.sha256(b"django_ratelimit_tiers.digests.keysecret").digest()
        expected = hmac.new(key, "k\u00e91".encode(), "sha256").hexdigest()[:32]
        for _ in range(2):
            assert key_digest("k\u00e91") == f"key:{expected}"


def test_a_digest_depends_on_the_secret_of_the_site():
    with override_settings(SECRET_KEY="another secret"):
        elsewhere = key_digest("k1")
    assert elsewhere != key_digest("k1")


def test_a_digest_does_not_contain_the_key():
    assert "0123456789" not in key_digest("0123456789")


def test_a_key_is_still_known_by_a_secret_that_was_rotated_out():
    with override_settings(SECRET_KEY="old"):
        stored = key_digest("k1")
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "old"]):
        assert list(key_digests("k1"))[2] == stored
        assert next(iter(key_digests("k1"))) == key_digest("k1") != stored
