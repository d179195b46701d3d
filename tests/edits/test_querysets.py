"""Who is told of an edit of assignments: everybody it touched, before and after."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import QuerySet

from django_ratelimit_tiers.models import PolicyRevision, Tier, TierAssignment
from django_ratelimit_tiers.querysets import AssignmentQuerySet
from tests.announcements import POLICY, named

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


def test_an_assignment_is_announced_for_its_user_alone(announced, user, free):
    TierAssignment.objects.create(user=user, tier=free)
    assert announced.new() == named(user)


def test_an_assignment_is_announced_for_its_key_by_digest(announced, free):
    assignment = TierAssignment.objects.create(api_key="k1", tier=free)
    assert announced.new() == {assignment.api_key}


def test_an_assignment_of_a_group_is_announced_for_everyone(announced, group, free):
    TierAssignment.objects.create(group=group, tier=free)
    assert announced.new() == POLICY


def test_assignments_created_in_bulk_are_announced_for_each(announced, user, other, free):
    rows = [TierAssignment(user=user, tier=free), TierAssignment(api_key="k1", tier=free)]
    TierAssignment.objects.bulk_create(rows)
    assert announced.new() == named(user) | {rows[1].api_key}


def test_assignments_overwritten_in_bulk_are_announced_for_everyone(assignment, announced, user):
    row = TierAssignment(user=user, tier=Tier.objects.get(slug="pro"))
    named_by = ["user"] if connection.features.supports_update_conflicts_with_target else None
    TierAssignment.objects.bulk_create(
        [row], update_conflicts=True, unique_fields=named_by, update_fields=["tier"]
    )
    assert announced.new() == POLICY


def test_a_moved_assignment_is_announced_for_both_users(assignment, announced, user, other):
    assignment.user = other
    assignment.save()
    assert announced.new() == named(user, other)


def test_an_assignment_updated_in_place_is_announced_for_both_users(
    assignment, announced, user, other
):
    TierAssignment.objects.filter(user=user).update(user=other)
    assert announced.new() == named(user, other)


def test_an_update_of_an_assignment_that_nobody_has_looked_at_is_announced_for_everyone(
    assignment, announced, other, free, monkeypatch
):
    usual = AssignmentQuerySet._lock

    def lock(rows, pks):
        locked = usual(rows, pks)
        late = TierAssignment(user=other, tier=free)
        QuerySet.bulk_create(TierAssignment.objects.all(), [late], ignore_conflicts=True)
        return locked

    monkeypatch.setattr(AssignmentQuerySet, "_lock", lock)
    TierAssignment.objects.filter(tier=free).update(note="seen")
    assert announced.new() == POLICY


def test_assignments_updated_through_a_join_are_announced(assignment, announced, user):
    TierAssignment.objects.filter(tier__slug="free", user__username="ada").update(note="seen")
    assert announced.new() == named(user)


def test_assignments_bulk_updated_are_announced_before_and_after(
    assignment, announced, user, other
):
    assignment.user = other
    TierAssignment.objects.bulk_update([assignment], ["user"])
    assert announced.new() == named(user, other)


def test_an_update_that_finds_no_assignment_is_not_announced(assignment, announced, other):
    TierAssignment.objects.filter(user=other).update(note="nobody")
    assert announced.new() == set()


def test_a_deleted_assignment_is_announced_for_whom_the_database_named(
    assignment, announced, user, other
):
    assignment.user = other
    assignment.delete()
    assert announced.new() == named(user)


def test_an_assignment_that_goes_with_its_user_is_announced(assignment, announced, user):
    gone = named(user)
    User.objects.all().delete()
    assert announced.new() == gone


def test_an_assignment_that_goes_with_its_group_is_announced(announced, group, free):
    TierAssignment.objects.create(group=group, tier=free)
    announced.new()
    group.delete()
    assert announced.new() == POLICY


def test_an_assignment_edit_waits_for_its_commit_and_dies_with_its_transaction(
    assignment, announced, user
):
    with transaction.atomic():
        assignment.save()
        TierAssignment.objects.update(note="changed")
        assert announced.new() == set()
        transaction.set_rollback(True)
    assert announced.new() == set()
    assert not PolicyRevision.objects.exists()


def test_more_assignments_than_can_be_named_are_announced_for_everyone(announced, free):
    users = User.objects.bulk_create([User(username=f"u{n}") for n in range(1001)])
    TierAssignment.objects.bulk_create([TierAssignment(user=user, tier=free) for user in users])
    assert announced.new() == POLICY
    TierAssignment.objects.update(note="all")
    assert announced.new() == POLICY
