"""From a write to its revision: recorded in the same transaction, announced after commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.db import models, router, transaction
from django.db.migrations import Migration, RunPython, RunSQL
from django.db.migrations.loader import MigrationLoader
from django.db.models.signals import (
    class_prepared,
    m2m_changed,
    post_delete,
    post_migrate,
    post_save,
    pre_delete,
    pre_save,
)

from django_ratelimit_tiers.events.series import forget_hours
from django_ratelimit_tiers.models import (
    AlertRule,
    EndpointRule,
    PolicyRevision,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)
from django_ratelimit_tiers.models.accounts import user_subject
from django_ratelimit_tiers.models.tiers import PolicyModel
from django_ratelimit_tiers.policy.assignments import group_field
from django_ratelimit_tiers.policy.revisions import announce_policy, announce_subjects
from django_ratelimit_tiers.querysets import MAX_SUBJECTS, announce_edit
from django_ratelimit_tiers.signals import policy_edited, subject_edited

Key = tuple[str, str]
"""An app and the name of a migration."""

POLICY_MODELS: tuple[type[PolicyModel], ...] = (
    Tier,
    TierPolicy,
    EndpointRule,
    RulePolicy,
    ServiceAccount,
)


APP = "django_ratelimit_tiers"


class Announcement:
    """Everything that one transaction has to announce, said once when it commits."""

    def __init__(self) -> None:
        self._clear()

    def __call__(self) -> None:
        everyone, subjects = self._everyone, sorted(self._subjects)
        self._clear()
        if everyone:
            announce_policy()
        elif subjects:
            announce_subjects(subjects)

    def add(self, model: str, reason: str, subjects: tuple[str, ...], using: str) -> None:
        """Record an edit and take it into the announcement; no subjects stand for everyone.

        The same kind of edit of everything is recorded once, so that deleting a thousand rules
        does not write a thousand revisions.
        """
        if subjects and len(self._subjects.union(subjects)) > MAX_SUBJECTS:
            subjects = ()
        if subjects:
            self._subjects.update(subjects)
        else:
            self._everyone = True
        if self._is_recorded(model, reason, using):
            return
        revision = PolicyRevision.record(model, reason, subjects, using)
        if not subjects:
            self._recorded[model, reason] = revision.pk

    def _is_recorded(self, model: str, reason: str, using: str) -> bool:
        """Whether an edit of everything was recorded, and not taken back by `savepoint_rollback`.

        Django knows of such savepoints nothing that could be asked.
        """
        pk = self._recorded.get((model, reason))
        return pk is not None and PolicyRevision.objects.using(using).filter(pk=pk).exists()

    def _clear(self) -> None:
        self._everyone = False
        self._subjects: set[str] = set()
        self._recorded: dict[tuple[str, str], int] = {}


def connect() -> None:
    """Connect everything here; connecting twice changes nothing."""
    policy_edited.connect(on_policy_edited)
    subject_edited.connect(on_subject_edited)
    for model in apps.get_models():
        connect_model(model)
    class_prepared.connect(connect_model)
    post_migrate.connect(on_migrated, sender=apps.get_app_config(APP))
    if (groups := group_field()) is not None:
        memberships = groups.remote_field.through
        m2m_changed.connect(on_membership_changed, sender=memberships)
        if not memberships._meta.auto_created:  # Django writes such rows without a signal
            post_save.connect(on_membership_written, sender=memberships)
            post_delete.connect(on_membership_written, sender=memberships)


def connect_model(sender: type[models.Model], **_: Any) -> None:
    """Connect one of these models, or one made of it: a proxy's rows are the same rows."""
    if issubclass(sender, Tier):
        pre_save.connect(on_tier_loading, sender=sender)
    if issubclass(sender, POLICY_MODELS):
        post_save.connect(on_policy_saved, sender=sender)
        post_delete.connect(on_policy_deleted, sender=sender)
    if issubclass(sender, AlertRule):
        pre_save.connect(on_alert_rule_saving, sender=sender)
    if issubclass(sender, TierAssignment):
        pre_save.connect(on_assignment_leaving, sender=sender)
        post_save.connect(on_assignment_saved, sender=sender)
        pre_delete.connect(on_assignment_leaving, sender=sender)


def on_policy_edited(sender: type[models.Model], using: str, reason: str, **_: Any) -> None:
    """Raise the revision of the policy."""
    _raise_revision(sender, using, reason, ())


def on_subject_edited(
    sender: type[models.Model], using: str, subjects: tuple[str, ...], reason: str, **_: Any
) -> None:
    """Raise the revision of single subjects."""
    _raise_revision(sender, using, reason, subjects)


def on_tier_loading(instance: Tier, using: str, raw: bool, **_: Any) -> None:
    """Let a tier of a fixture take over from the one that was the default, as forms do."""
    if raw and instance.default_for:
        former = Tier.objects.using(using).filter(default_for=instance.default_for)
        former.exclude(pk=instance.pk).update(default_for="")


def on_policy_saved(
    sender: type[PolicyModel],
    using: str,
    created: bool,
    update_fields: frozenset[str] | None = None,
    **_: Any,
) -> None:
    """Announce a saved row, unless only fields were saved that are no part of the policy."""
    if update_fields is None or not update_fields <= sender.quiet_fields:
        policy_edited.send(sender, using=using, reason="created" if created else "changed")


def on_policy_deleted(sender: type[PolicyModel], using: str, **_: Any) -> None:
    """Announce a deleted row, also one deleted by cascade."""
    policy_edited.send(sender, using=using, reason="deleted")


def on_alert_rule_saving(instance: AlertRule, using: str, **_: Any) -> None:
    """Forget what was usual for a rule that is about something else now."""
    if instance.pk is not None:
        forget_hours(instance, using)


def on_assignment_leaving(instance: TierAssignment, using: str, **_: Any) -> None:
    """Announce whom a row still names, unless it is a new one."""
    if instance.pk is not None:
        TierAssignment.objects.using(using).announce_stored(instance.pk)  # a proxy's may be others


def on_assignment_saved(instance: TierAssignment, using: str, created: bool, **_: Any) -> None:
    """Announce whom a saved row names now."""
    reason = "created" if created else "changed"
    TierAssignment.objects.using(using).announce([instance.subject], reason)


def on_membership_changed(
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **_: Any,
) -> None:
    """Announce users whose groups changed, from whichever side they were changed."""
    if action not in {"post_add", "post_remove", "post_clear"}:
        return
    reason = f"membership: {action.removeprefix('post_')}"
    users = pk_set if reverse else {instance.pk}
    # A cleared group no longer knows its users.
    subjects = [None] if users is None else [f"user:{pk}" for pk in users]
    announce_edit(sender, subjects, using=using, reason=reason)


def on_membership_written(
    sender: type[models.Model], instance: models.Model, using: str, **_: Any
) -> None:
    """Announce the user of a row of a project's own model of memberships."""
    user = getattr(instance, f"{group_field().m2m_field_name()}_id")
    announce_edit(sender, [user_subject(user)], using=using, reason="membership")


def on_migrated(using: str, plan: Sequence[tuple[Migration, bool]] = (), **_: Any) -> None:
    """Announce what a project's own migrations wrote, whose models send none of these signals.

    To take one back may write as well. Nothing is said where our own are taken back: the tables
    are gone, or those of another version.
    """
    if any(backwards and migration.app_label == APP for migration, backwards in plan):
        return
    known: Mapping[Key, Migration] | None = None
    for migration, _backwards in plan:
        if migration.app_label != APP and _may_write(migration):
            known = _all_migrations() if known is None else known
            if _depends_on_ours(migration, known):
                policy_edited.send(EndpointRule, using=using, reason=f"migration {migration}")


def _may_write(migration: Migration) -> bool:
    """Return whether a migration runs code of the project, or names one of ours."""
    runs_code = any(isinstance(each, RunPython | RunSQL) for each in migration.operations)
    return runs_code or any(app == APP for app, _ in migration.dependencies)


def _depends_on_ours(migration: Migration, known: Mapping[Key, Migration]) -> bool:
    """Return whether a migration depends on one of ours, be it through others."""
    ahead, seen = list(migration.dependencies), set[Key]()
    while ahead:
        key = ahead.pop()
        if key[0] == APP:
            return True
        if key not in seen and key in known:
            seen.add(key)
            ahead += known[key].dependencies
    return False


def _all_migrations() -> Mapping[Key, Migration]:
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    return loader.disk_migrations


def _raise_revision(
    sender: type[models.Model], using: str, reason: str, subjects: tuple[str, ...]
) -> None:
    if not _has_policy(using):
        return
    with transaction.atomic(using=using, savepoint=False):
        announcement = _announcement(using)
        announcement.add(sender._meta.label_lower, reason, subjects, using)
        transaction.on_commit(announcement, using=using)


def _has_policy(using: str) -> bool:
    """Whether a database has the tables: users and migrations may be in others, too.

    Without a router any database may have them.
    """
    if using == router.db_for_write(PolicyRevision):
        return True
    if not router.allow_migrate_model(using, PolicyRevision):
        return False
    tables = transaction.get_connection(using).introspection.table_names()
    return PolicyRevision._meta.db_table in tables


def _announcement(using: str) -> Announcement:
    """Return the announcement that is scheduled for the present savepoint, or a new one.

    Django drops what was scheduled in a savepoint that is rolled back, so only edits of the very
    same savepoints may share one.
    """
    connection = transaction.get_connection(using)
    savepoints = {sid for sid in connection.savepoint_ids if sid is not None}
    for scheduled, callback, *_ in reversed(connection.run_on_commit):
        if isinstance(callback, Announcement) and scheduled - {None} == savepoints:
            return callback
    return Announcement()
