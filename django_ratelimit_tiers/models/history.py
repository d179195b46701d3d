"""What was refused, who used how much, and how the policy was edited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.color import no_style
from django.db import IntegrityError, connections, models, transaction
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.alerts import Resolution
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.models.choices import MODES, RESOLUTIONS
from django_ratelimit_tiers.models.fields import ExactCharField

_author: ContextVar[Any] = ContextVar("author", default=None)


@contextmanager
def edits_by(user: Any) -> Iterator[None]:
    """Attribute the policy edits made inside to a user."""
    token = _author.set(user)
    try:
        yield
    finally:
        _author.reset(token)


class PolicyRevision(models.Model):
    """One edit of the policy; the id is the number of the revision.

    `subjects` lists whose tier may have changed; empty when the edit concerns everyone. Numbers
    are given before commit, so a lower one can become visible after a higher one.
    """

    created_at = models.DateTimeField(_("time"), auto_now_add=True, db_index=True)
    model = models.CharField(_("edited"), max_length=100)
    reason = models.CharField(_("edit"), max_length=255)
    subjects = models.JSONField(_("concerns"), default=list, blank=True)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("author"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )

    class Meta:
        verbose_name = _("policy revision")
        verbose_name_plural = _("policy revisions")
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"{self.pk}: {self.model} {self.reason}"

    @classmethod
    def record(
        cls, model: str, reason: str, subjects: tuple[str, ...], using: str
    ) -> PolicyRevision:
        """Add a revision, by the author of `edits_by` if there is one, and return it."""
        edit = {"model": model, "reason": reason, "subjects": list(subjects)}
        create = partial(cls.objects.using(using).create, **edit, author=_author.get())
        try:
            with transaction.atomic(using=using):
                return create()
        except IntegrityError:
            # Rows that `loaddata` brought with their numbers are unknown to PostgreSQL's sequence.
            cls._count_on(using)
            return create()

    @classmethod
    def _count_on(cls, using: str) -> None:
        """Let the next number be one after all that are there."""
        connection = connections[using]
        with connection.cursor() as cursor:
            for statement in connection.ops.sequence_reset_sql(no_style(), [cls]):
                cursor.execute(statement)


class Refusal(models.Model):
    """What a refused request was counted under."""

    policy = ExactCharField(_("policy"), max_length=150)
    tier = ExactCharField(_("tier"), max_length=50, blank=True)
    endpoint = ExactCharField(_("endpoint"), max_length=255, blank=True)
    subject = ExactCharField(_("subject"), max_length=150)
    mode = ExactCharField(_("mode"), max_length=10, choices=MODES, default=Mode.ENFORCE.value)

    class Meta:
        abstract = True


class ThrottleCount(Refusal):
    """How many requests of a subject a policy refused in a minute, hour or day.

    In shadow mode: would have refused. `minute` is the start of that time.
    """

    minute = models.DateTimeField(_("time"))
    resolution = ExactCharField(
        _("span"), max_length=10, choices=RESOLUTIONS, default=Resolution.MINUTE.value
    )
    count = models.PositiveBigIntegerField(_("refusals"), default=0)

    class Meta:
        verbose_name = _("throttle count")
        verbose_name_plural = _("throttle counts")
        ordering = ("-minute", "-count")
        constraints = (
            models.UniqueConstraint(
                fields=(
                    "resolution",
                    "minute",
                    "policy",
                    "tier",
                    "endpoint",
                    "subject",
                    "mode",
                ),
                name="rlt_%(class)s_one_each",
            ),
        )
        indexes = (models.Index(fields=("subject", "minute"), name="rlt_count_subject"),)

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M} {self.policy} {self.subject}: {self.count}"


class ThrottleEvent(Refusal):
    """A sample of refused requests in detail; `retry_after` is in seconds."""

    at = models.DateTimeField(_("time"), db_index=True)
    decision_id = ExactCharField(_("decision"), max_length=64)
    method = models.CharField(_("method"), max_length=20)
    path = models.CharField(_("path"), max_length=500)
    address = models.CharField(_("address"), max_length=64, blank=True)
    user_agent = models.CharField(_("user agent"), max_length=255, blank=True)
    rule = models.CharField(_("rule"), max_length=100, blank=True)
    retry_after = models.PositiveBigIntegerField(_("retry after"), null=True, blank=True)
    revision = models.PositiveBigIntegerField(_("revision"), null=True, blank=True)

    class Meta:
        verbose_name = _("throttle event")
        verbose_name_plural = _("throttle events")
        ordering = ("-at",)
        constraints = (
            models.UniqueConstraint(
                fields=("decision_id", "policy"), name="rlt_%(class)s_one_each"
            ),
        )
        indexes = (models.Index(fields=("subject", "at"), name="rlt_event_subject"),)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.policy} {self.subject}"


class UsageCount(models.Model):
    """What one of the busiest subjects of an hour was allowed and refused.

    A service account is the subject `account:` and its id. `hourly_limit` is what its tightest
    limit lets through in an hour, 0 where it has none.
    """

    hour = models.DateTimeField(_("hour"))
    subject = ExactCharField(_("subject"), max_length=150)
    allowed = models.PositiveBigIntegerField(_("allowed"), default=0)
    refused = models.PositiveBigIntegerField(_("refused"), default=0)
    hourly_limit = models.PositiveBigIntegerField(_("limit in an hour"), default=0)

    class Meta:
        verbose_name = _("usage count")
        verbose_name_plural = _("usage counts")
        ordering = ("-hour", "-allowed")
        constraints = (
            models.UniqueConstraint(fields=("hour", "subject"), name="rlt_%(class)s_one_each"),
        )
        indexes = (models.Index(fields=("subject", "hour"), name="rlt_usage_subject"),)

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:%M} {self.subject}: {self.allowed}"
