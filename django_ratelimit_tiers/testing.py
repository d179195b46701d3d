"""Helpers for the tests of projects that use this package; they fit unittest and pytest.

Both are context managers and decorators of functions and of `SimpleTestCase` classes; in
asynchronous tests, `async with`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test.utils import TestContextDecorator, override_settings

from django_ratelimit_tiers.conf import SETTING
from django_ratelimit_tiers.core.policies import Algorithm, Mode, QuotaPolicy
from django_ratelimit_tiers.models import Tier, TierPolicy
from django_ratelimit_tiers.policy.revisions import announce_policy, announce_subjects
from django_ratelimit_tiers.shapes import EVENT_SHAPES, SHAPES, Shapes
from django_ratelimit_tiers.signals import policy_edited, subject_edited

MEMORY_STORE = "django_ratelimit_tiers.store.memory.MemoryStore"


class _Overridden(TestContextDecorator):
    """Lays values over the setting; whatever was read with the earlier ones is forgotten."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        _refuse_wrong(SETTING, values, SHAPES)
        _refuse_wrong(f"{SETTING}['EVENTS']", values.get("EVENTS", {}), EVENT_SHAPES)
        self._values = dict(values)
        self._overrides: list[override_settings] = []

    def enable(self) -> None:
        """Let the values hold."""
        override = override_settings(**{SETTING: getattr(settings, SETTING, {}) | self._values})
        override.enable()
        self._overrides.append(override)

    def disable(self) -> None:
        """Let the earlier values hold again."""
        self._overrides.pop().disable()

    async def __aenter__(self) -> None:
        await sync_to_async(self.enable)()

    async def __aexit__(self, *_: object) -> None:
        await sync_to_async(self.disable)()

    def decorate_callable(self, func: Any) -> Any:
        """Decorate an asynchronous function so that the database is asked in a thread."""
        if not iscoroutinefunction(func):
            return super().decorate_callable(func)

        @wraps(func)
        async def decorated(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await func(*args, **kwargs)

        return decorated


class unlimited(_Overridden):  # noqa: N801 - reads as a word in a with statement
    """Switch every limit off: `with unlimited():` or `@unlimited()`."""

    def __init__(self) -> None:
        super().__init__({"ENABLED": False})


class override_limits(_Overridden):  # noqa: N801 - reads as a word in a with statement
    """Count afresh in memory, with other limits for some tiers and other settings.

    `tiers` maps slugs to requests and period in seconds: `override_limits({"free": (2, 60)})`
    leaves the free tier this one limit, a sliding window counter, and needs the test database. It
    is enforced, also where the tier is in shadow mode or unlimited.
    What the test edits, before or inside, is in force at once, without a commit. Raises
    `Tier.DoesNotExist` for an unknown slug, ImproperlyConfigured for an unknown or wrong setting,
    and ValueError for what is no limit.
    """

    def __init__(self, tiers: Mapping[str, tuple[int, int]] | None = None, **values: Any) -> None:
        super().__init__({"ENABLED": True, "STORE": MEMORY_STORE, "STORE_OPTIONS": {}, **values})
        self._tiers = {slug: _limit(slug, limit) for slug, limit in (tiers or {}).items()}
        self._replaced: list[dict[Tier, list[TierPolicy]]] = []

    def enable(self) -> None:
        """Let the limits hold; nothing has been spent."""
        replaced = {}
        tiers = {slug: _tier(slug) for slug in self._tiers}
        for slug, (requests, period) in self._tiers.items():
            tier = tiers[slug]
            replaced[tier] = list(tier.policies.all())
            algorithm = Algorithm.SLIDING_WINDOW_COUNTER.value
            Tier.objects.filter(pk=tier.pk).update(mode=Mode.ENFORCE, unlimited=False)
            _replace(
                tier,
                [TierPolicy(tier=tier, requests=requests, period=period, algorithm=algorithm)],
            )
        self._replaced.append(replaced)
        super().enable()
        policy_edited.connect(self._tell_everyone)
        subject_edited.connect(self._tell)

    def disable(self) -> None:
        """Let the earlier limits hold again, the settings also where the database fails.

        A test that has broken its transaction would leave them to all tests after it.
        """
        policy_edited.disconnect(self._tell_everyone)
        subject_edited.disconnect(self._tell)
        try:
            for tier, policies in self._replaced.pop().items():
                Tier.objects.filter(pk=tier.pk).update(mode=tier.mode, unlimited=tier.unlimited)
                _replace(tier, policies)
        finally:
            super().disable()

    def _tell_everyone(self, **_: Any) -> None:
        announce_policy()  # the transaction of a test has no commit that would

    def _tell(self, subjects: Sequence[str], **_: Any) -> None:
        announce_subjects(subjects)


def _refuse_wrong(where: str, values: Mapping[str, Any], shapes: Shapes) -> None:
    for key, value in values.items():
        if key not in shapes:
            keys = ", ".join(shapes)
            raise ImproperlyConfigured(f"{where} has no key {key!r}; the keys are: {keys}")
        is_right, wanted = shapes[key]
        if not is_right(value):
            raise ImproperlyConfigured(f"{where}[{key!r}] is wrong: make it {wanted}")


def _limit(slug: str, limit: tuple[int, int]) -> tuple[int, int]:
    """Return a limit, which is right: the database would refuse it in the middle of a test."""
    try:
        requests, period = limit
        QuotaPolicy(slug, requests, period)
    except (TypeError, ValueError) as error:
        wanted = "must be requests and seconds, such as (2, 60)"
        raise ValueError(f"the limit of {slug!r} {wanted}, not {limit!r}: {error}") from error
    return requests, period


def _tier(slug: str) -> Tier:
    try:
        return Tier.objects.get(slug=slug)
    except Tier.DoesNotExist:
        problem = f"there is no tier {slug!r}: with real transactions set serialized_rollback; "
        problem += "in a kept test database, or one without migrations, create it first"
        raise Tier.DoesNotExist(problem) from None


def _replace(tier: Tier, policies: list[TierPolicy]) -> None:
    tier.policies.all().delete()
    for policy in policies:
        policy.save(force_insert=True)
