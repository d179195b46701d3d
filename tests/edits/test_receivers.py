"""Every write path raises the revision with the edit and announces it after the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.serializers import serialize
from django.db import connection, models, transaction
from django.db.migrations import Migration
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.test import modify_settings, override_settings
from django.test.utils import isolate_apps

from django_ratelimit_tiers import receivers
from django_ratelimit_tiers.models import (
    EndpointRule,
    PolicyRevision,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)
from django_ratelimit_tiers.models.history import edits_by
from django_ratelimit_tiers.models.tiers import PolicyModel
from tests.announcements import POLICY, Announced, named
from tests.replicas import ReadReplica, unreachable_replica

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def rule() -> EndpointRule:
    rule = EndpointRule.objects.create(name="search", path="/api/search")
    RulePolicy.objects.create(rule=rule, requests=5, period=60)
    return rule


@pytest.fixture
def account() -> ServiceAccount:
    return ServiceAccount.objects.create(
        name="backup", owner="ops", reason="nightly", networks="192.0.2.0/24"
    )


@pytest.fixture
def announced(rule, account, announced) -> Announced:
    return announced


WRITES: dict[str, Callable[[], object]] = {
    "save": lambda: Tier.objects.get(slug="free").save(),
    "save of a limit": lambda: TierPolicy.objects.filter(tier__slug="free").first().save(),
    "create": lambda: Tier.objects.create(slug="new", name="New"),
    "get_or_create": lambda: Tier.objects.get_or_create(slug="new"),
    "update_or_create": lambda: Tier.objects.update_or_create({"rank": 9}, slug="free"),
    "delete": lambda: EndpointRule.objects.get(name="search").delete(),
    "delete of a queryset": lambda: EndpointRule.objects.all().delete(),
    "cascade": lambda: RulePolicy.objects.get().rule.delete(),
    "update": lambda: TierPolicy.objects.filter(tier__slug="free").update(requests=7),
    "bulk_create": lambda: Tier.objects.bulk_create([Tier(slug="a"), Tier(slug="b")]),
    "bulk_update": lambda: Tier.objects.bulk_update(Tier.objects.all(), ["rank"]),
    "update through a relation": lambda: Tier.objects.get(slug="free").policies.update(requests=7),
    "moved by a relation": lambda: Tier.objects.get(slug="pro").policies.add(
        TierPolicy.objects.create(tier=Tier.objects.get(slug="free"), requests=1, period=7)
    ),
    "asave": lambda: async_to_sync(Tier(slug="new").asave)(),
    "acreate": lambda: async_to_sync(Tier.objects.all().acreate)(slug="new"),
    "aupdate": lambda: async_to_sync(Tier.objects.filter(slug="free").aupdate)(rank=9),
    "adelete": lambda: async_to_sync(EndpointRule.objects.all().adelete)(),
    "abulk_create": lambda: async_to_sync(Tier.objects.all().abulk_create)([Tier(slug="a")]),
    "abulk_update": lambda: async_to_sync(ServiceAccount.objects.all().abulk_update)(
        list(ServiceAccount.objects.all()), ["is_active"]
    ),
    "rule": lambda: EndpointRule.objects.update(mode="shadow"),
    "limit of a rule": lambda: RulePolicy.objects.update(requests=6),
    "service account": lambda: ServiceAccount.objects.get().save(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_raises_the_revision_and_is_announced(write, announced):
    write()
    assert announced.new() == POLICY
    assert PolicyRevision.objects.exists()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_is_not_announced_before_its_commit(write, announced):
    with transaction.atomic():
        write()
        assert announced.new() == set()
    assert announced.new() == POLICY


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_that_is_rolled_back_leaves_no_trace(write, announced):
    with transaction.atomic():
        write()
        transaction.set_rollback(True)
    assert announced.new() == set()
    assert not PolicyRevision.objects.exists()


MEMBERSHIPS: dict[str, Callable[[User, Group], object]] = {
    "user.groups.add": lambda user, group: user.groups.add(group),
    "group.user_set.add": lambda user, group: group.user_set.add(user),
    "user.groups.set": lambda user, group: user.groups.set([group]),
    "group.user_set.set": lambda user, group: group.user_set.set([user]),
}
DEPARTURES: dict[str, Callable[[User, Group], object]] = {
    "user.groups.remove": lambda user, group: user.groups.remove(group),
    "group.user_set.remove": lambda user, group: group.user_set.remove(user),
    "user.groups.clear": lambda user, _group: user.groups.clear(),
    "user.groups.set": lambda user, _group: user.groups.set([]),
    "group.user_set.set": lambda _user, group: group.user_set.set([]),
}


@pytest.mark.parametrize("join", MEMBERSHIPS.values(), ids=MEMBERSHIPS.keys())
def test_joining_a_group_is_announced_for_the_user_after_commit(join, announced, user, group):
    with transaction.atomic():
        join(user, group)
        assert announced.new() == set()
    assert announced.new() == named(user)
    assert PolicyRevision.objects.get().subjects == [f"user:{user.pk}"]


@pytest.mark.parametrize("leave", DEPARTURES.values(), ids=DEPARTURES.keys())
def test_leaving_a_group_is_announced_for_the_user_after_commit(leave, announced, user, group):
    user.groups.add(group)
    announced.new()
    with transaction.atomic():
        leave(user, group)
        assert announced.new() == set()
    assert announced.new() == named(user)


def test_emptying_a_group_is_announced_for_everyone(announced, user, group):
    user.groups.add(group)
    announced.new()
    group.user_set.clear()
    assert announced.new() == POLICY


@pytest.fixture
def memberships(monkeypatch) -> Iterator[type[models.Model]]:
    """A project's own model of who is in which group."""
    with isolate_apps("tests") as isolated:
        isolated.register_model("auth", Group)

        class Member(AbstractBaseUser):
            groups = models.ManyToManyField(Group, "+", through="tests.Membership")

            class Meta:
                app_label = "tests"
                db_table = User._meta.db_table

        class Membership(models.Model):  # noqa: DJ008 - nobody is shown one
            user = models.ForeignKey(Member, models.CASCADE, db_constraint=False)
            group = models.ForeignKey(Group, models.CASCADE, "+", db_constraint=False)

            class Meta:
                app_label = "tests"

    monkeypatch.setattr(receivers, "group_field", lambda: Member._meta.get_field("groups"))
    receivers.connect()
    with connection.schema_editor() as editor:
        editor.create_model(Membership)
    yield Membership
    with connection.schema_editor() as editor:
        editor.delete_model(Membership)
    for signal in (m2m_changed, post_save, post_delete):
        for receiver in (receivers.on_membership_changed, receivers.on_membership_written):
            signal.disconnect(receiver, sender=Membership)


def test_a_membership_that_is_written_by_itself_is_announced_for_the_user_after_commit(
    announced, memberships, user, group
):
    with transaction.atomic():
        membership = memberships.objects.create(user_id=user.pk, group=group)
        assert announced.new() == set()
    assert announced.new() == named(user)
    membership.delete()
    assert announced.new() == named(user)


def test_loaded_data_is_announced(assignment, announced, user, other, tmp_path):
    tiers = tmp_path / "tiers.json"
    tiers.write_text(serialize("json", Tier.objects.filter(slug="free")))
    call_command("loaddata", tiers, verbosity=0)
    assert announced.new() == POLICY

    assignment.user = other
    moved = tmp_path / "assignments.json"
    moved.write_text(serialize("json", [assignment]))
    call_command("loaddata", moved, verbosity=0)
    assert announced.new() == named(user, other)


@modify_settings(INSTALLED_APPS={"append": "tests.shop"})
def test_what_a_projects_own_migration_writes_is_announced(announced):
    call_command("migrate", "shop", "0001", verbosity=0)
    assert announced.new() == POLICY
    assert PolicyRevision.objects.get().reason == "migration shop.0001_rules"
    call_command("migrate", "shop", "zero", verbosity=0)


@modify_settings(INSTALLED_APPS={"append": "tests.shop"})
def test_what_a_migration_writes_that_depends_on_ours_through_another_is_announced(announced):
    call_command("migrate", "shop", "0001", verbosity=0)
    announced.new()
    call_command("migrate", "shop", "0002", verbosity=0)
    assert announced.new() == POLICY
    assert PolicyRevision.objects.first().reason == "migration shop.0002_off"
    call_command("migrate", "shop", "zero", verbosity=0)


@modify_settings(INSTALLED_APPS={"append": "tests.shop"})
def test_what_a_projects_own_migration_takes_back_is_announced(announced):
    call_command("migrate", "shop", verbosity=0)
    announced.new()
    call_command("migrate", "shop", "0001", verbosity=0)
    assert announced.new() == POLICY
    call_command("migrate", "shop", "zero", verbosity=0)


def test_nothing_is_recorded_where_the_tables_are_taken_back(announced):
    own = Migration("0001_initial", "django_ratelimit_tiers")
    receivers.on_migrated("default", [(project_migration(), True), (own, True)])
    assert announced.new() == set()
    assert not PolicyRevision.objects.exists()


def test_a_dump_with_its_history_is_loaded_and_edited_on(rule, tmp_path):
    for cost in range(2, 12):
        EndpointRule.objects.update(cost=cost)
    file = str(tmp_path / "dump.json")
    call_command("dumpdata", "django_ratelimit_tiers", output=file, verbosity=0)
    call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)
    call_command("loaddata", file, verbosity=0)
    EndpointRule.objects.update(cost=12)
    assert EndpointRule.objects.get().cost == 12
    assert PolicyRevision.objects.first().reason == "updated in bulk"


def test_a_last_use_is_no_edit_of_the_policy(announced, account):
    ServiceAccount.objects.update(last_used_at=account.expires_at)
    account.save(update_fields=["last_used_at"])
    assert announced.new() == set()
    assert not PolicyRevision.objects.exists()


def test_the_edits_of_one_transaction_are_announced_once(announced):
    calls = []
    with transaction.atomic():
        Tier.objects.get(slug="free").save()
        Tier.objects.update(rank=1)
        calls = [callback for _, callback, *_ in connection.run_on_commit]
    assert len(set(calls)) == 1


def test_many_deleted_rows_are_one_revision(announced):
    tiers = Tier.objects.bulk_create([Tier(slug=f"t{n}") for n in range(50)])
    PolicyRevision.objects.all().delete()
    Tier.objects.filter(pk__in=[tier.pk for tier in tiers]).delete()
    assert PolicyRevision.objects.count() == 1


def test_edits_of_more_clients_than_are_told_apart_are_one_of_everybody(
    announced, user, other, free, monkeypatch
):
    monkeypatch.setattr(receivers, "MAX_SUBJECTS", 1)
    with transaction.atomic():
        for client in (user, other):
            TierAssignment.objects.create(user=client, tier=free)
    assert announced.new() == POLICY


def test_an_edit_survives_a_later_savepoint_that_is_rolled_back(announced, user, free):
    with transaction.atomic():
        TierAssignment.objects.create(user=user, tier=free)
        with transaction.atomic():
            Tier.objects.update(rank=1)
            transaction.set_rollback(True)
    assert announced.new() == named(user)
    assert [revision.subjects for revision in PolicyRevision.objects.all()] == [[f"user:{user.pk}"]]


def test_an_edit_after_a_savepoint_that_was_rolled_back_is_recorded(announced):
    with transaction.atomic():
        with transaction.atomic():
            Tier.objects.update(rank=1)
            transaction.set_rollback(True)
        Tier.objects.update(rank=2)
    assert announced.new() == POLICY
    assert PolicyRevision.objects.count() == 1


class Apart:
    """A router that keeps the policy out of every database but the first."""

    def allow_migrate(self, db: str, app_label: str, **_: object) -> bool | None:
        return db == "default" if app_label == "django_ratelimit_tiers" else None


@pytest.mark.parametrize("routers", [[Apart()], [ReadReplica(), Apart()]])
def test_what_is_written_in_a_database_without_the_policy_is_no_edit(
    announced, user, group, free, routers
):
    with unreachable_replica(), override_settings(DATABASE_ROUTERS=routers):
        receivers.on_migrated("replica", [(project_migration(), False)])
        m2m_changed.send(
            User.groups.through,
            instance=user,
            action="post_add",
            reverse=False,
            pk_set={group.pk},
            using="replica",
        )
        assert announced.new() == set()
        free.save(using="default")
    assert announced.new() == POLICY


class Elsewhere:
    """A router that writes the policy to a second database, and forbids it in none."""

    def db_for_write(self, model: type[models.Model], **_: object) -> str | None:
        return "second" if model._meta.app_label == "django_ratelimit_tiers" else None


def test_a_group_is_joined_in_a_database_without_the_tables_that_no_router_forbids_them(
    announced, user, group, monkeypatch
):
    monkeypatch.setattr(PolicyRevision._meta, "db_table", "nowhere")
    with override_settings(DATABASE_ROUTERS=[Elsewhere()]):
        user.groups.add(group)
    assert announced.new() == set()


def project_migration() -> Migration:
    migration = Migration("0001_limits", "shop")
    migration.dependencies = [("django_ratelimit_tiers", "0002_tier_table")]
    return migration


@isolate_apps("tests")
def test_what_is_written_by_a_proxy_is_an_edit(announced, user, free):
    class MyTier(Tier):
        class Meta:
            app_label = "tests"
            proxy = True

    class MyAssignment(TierAssignment):
        class Meta:
            app_label = "tests"
            proxy = True

    MyTier.objects.get(slug="free").save()
    assert announced.new() == POLICY
    made = MyTier.objects.create(slug="new", name="New")
    assert announced.new() == POLICY
    made.delete()
    assert announced.new() == POLICY
    assignment = MyAssignment.objects.create(user=user, tier=free)
    assert announced.new() == named(user)
    assignment.delete()
    assert announced.new() == named(user)


@isolate_apps("tests")
def test_an_assignment_is_written_by_a_proxy_with_a_manager_of_its_own(announced, user, free):
    class Noted(models.Manager):
        def get_queryset(self):
            return super().get_queryset().exclude(note="")

    class NotedAssignment(TierAssignment):
        objects = Noted()

        class Meta:
            app_label = "tests"
            proxy = True

    NotedAssignment.objects.create(user=user, tier=free, note="asked for it")
    assert announced.new() == named(user)
    assignment = NotedAssignment.objects.get()
    TierAssignment.objects.update(note="")
    announced.new()
    assignment.delete()
    assert announced.new() == named(user)


def test_an_edit_after_a_savepoint_that_was_taken_and_rolled_back_by_hand_is_recorded(announced):
    with transaction.atomic():
        savepoint = connection.savepoint()
        Tier.objects.update(rank=1)
        connection.savepoint_rollback(savepoint)
        Tier.objects.update(rank=2)
    assert announced.new() == POLICY
    assert PolicyRevision.objects.count() == 1


def test_an_edit_and_its_revision_are_in_one_transaction(announced, free, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no revision can be recorded")

    monkeypatch.setattr(PolicyRevision, "record", fail)
    free.rank = 99
    with pytest.raises(RuntimeError):
        free.save()
    free.refresh_from_db()
    assert free.rank != 99


def test_a_revision_names_the_author_when_there_is_one(announced, user, free):
    free.save()
    with edits_by(user):
        free.save()
    free.save()
    assert [revision.author for revision in PolicyRevision.objects.all()] == [None, user, None]


def test_a_revision_says_what_was_written(announced, free):
    free.delete()
    latest = PolicyRevision.objects.first()
    assert (latest.model, latest.reason) == ("django_ratelimit_tiers.tier", "deleted")


def test_every_policy_model_is_listened_to():
    assert {*receivers.POLICY_MODELS, TierAssignment} == set(models_of_the_policy())


def test_no_policy_model_has_a_relation_that_nobody_listens_to():
    assert not [field for model in models_of_the_policy() for field in model._meta.many_to_many]


def models_of_the_policy() -> list[type[PolicyModel]]:
    return [model for model in apps.get_models() if issubclass(model, PolicyModel)]
