"""Who has which tier, and who is exempt."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.models.constraints import exactly_one, filled, readable
from django_ratelimit_tiers.models.deletion import delete_too
from django_ratelimit_tiers.models.fields import KeyDigestField, NetworksField, validate_year
from django_ratelimit_tiers.models.tiers import PolicyModel, Tier
from django_ratelimit_tiers.querysets import AssignmentQuerySet


def a_year_ahead() -> datetime:
    """Return the moment at which a new service account expires by default."""
    return timezone.now() + timedelta(days=365)


def user_key(value: object) -> Any:
    """Return a primary key as the user model has it, None for what cannot be one.

    Users that only a token describes have whatever its issuer calls them.
    """
    field = get_user_model()._meta.pk
    try:
        key = field.to_python(value)
        field.run_validators(key)  # such as the greatest number that the database knows
    except (ValidationError, ValueError, TypeError, OverflowError):
        return None
    return key


def user_subject(value: object) -> str:
    """Return the subject of a user by a primary key, however that is written.

    Code may assign a UUID without its hyphens; requests know the user by the one that is loaded.
    """
    return f"user:{get_user_model()._meta.pk.to_python(value)}"


class ServiceAccount(PolicyModel):
    """A known client that no limit applies to, identified by user, key and/or network."""

    natural_fields = ("name",)
    quiet_fields: ClassVar[frozenset[str]] = frozenset({"last_used_at"})

    name = models.CharField(_("name"), max_length=100, unique=True)
    owner = models.CharField(
        _("owner"), max_length=200, help_text=_("Who answers for it: a person or a team.")
    )
    reason = models.TextField(_("reason"), help_text=_("Why no limit may apply."))
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        # Not SET_NULL: an account by user and network would become one by network alone.
        on_delete=delete_too,
        null=True,
        blank=True,
        related_name="+",
    )
    key_digest = KeyDigestField(_("key"), blank=True, editable=False)
    networks = NetworksField(
        _("networks"),
        blank=True,
        help_text=_("Like 192.0.2.0/24, one on each line. The user or key then only counts there."),
    )
    is_active = models.BooleanField(_("active"), default=True)
    expires_at = models.DateTimeField(
        _("expires at"), default=a_year_ahead, validators=(validate_year,)
    )
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True, editable=False)

    class Meta(PolicyModel.Meta):
        verbose_name = _("service account")
        verbose_name_plural = _("service accounts")
        ordering = ("name",)
        constraints = (
            filled("owner"),
            filled("reason"),
            readable("expires_at"),
            models.CheckConstraint(
                condition=Q(user__isnull=False) | Q(key_digest__isnull=False) | ~Q(networks=""),
                name="rlt_%(class)s_identified",
                violation_error_message=_("Name a user or networks, or issue a key."),
            ),
        )

    def __str__(self) -> str:
        return self.name

    def natural_key(self) -> tuple[str]:
        """Return by what other installations know the account."""
        return (self.name,)

    def new_key(self) -> str:
        """Set a new key and return it: the only moment at which anybody can read it.

        The account still has to be saved.
        """
        key = f"rlt_{secrets.token_urlsafe(32)}"
        self.key_digest = key_digest(key)
        return key


class TierAssignment(PolicyModel):
    """The tier of a user, of a group's members or of an API key."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=delete_too,
        null=True,
        blank=True,
        related_name="+",
    )
    group = models.OneToOneField(
        "auth.Group",
        verbose_name=_("group"),
        on_delete=delete_too,
        null=True,
        blank=True,
        related_name="+",
    )
    api_key = KeyDigestField(
        _("API key"),
        blank=True,
        help_text=_(
            "What API_KEY_RESOLVER returns for it, such as its id. Only a digest is stored and "
            "shown."
        ),
    )
    tier = models.ForeignKey(
        Tier, verbose_name=_("tier"), on_delete=models.PROTECT, related_name="assignments"
    )
    expires_at = models.DateTimeField(
        _("expires at"),
        null=True,
        blank=True,
        validators=(validate_year,),
        help_text=_("Empty: never."),
    )
    note = models.CharField(_("note"), max_length=255, blank=True)

    objects = models.Manager.from_queryset(AssignmentQuerySet)()  # type: ignore[misc]

    class Meta(PolicyModel.Meta):
        verbose_name = _("tier assignment")
        verbose_name_plural = _("tier assignments")
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(
                condition=exactly_one("user", "group", "api_key"),
                name="rlt_%(class)s_one_subject",
                violation_error_message=_("Give a user, a group or an API key: exactly one."),
            ),
            readable("expires_at"),
        )

    def __str__(self) -> str:
        return f"{self.user or self.group or self.api_key}: {self.tier}"

    @property
    def subject(self) -> str | None:
        """The one subject that this names; None when it is the members of a group."""
        return user_subject(self.user_id) if self.user_id is not None else self.api_key

    def clean(self) -> None:
        """Refuse none or several of user, group and key."""
        super().clean()
        named = [value for value in (self.user_id, self.group_id, self.api_key) if value]
        if len(named) != 1:
            raise ValidationError(_("Give a user, a group or an API key: exactly one."))
