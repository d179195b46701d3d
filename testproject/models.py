"""Notes, and the API keys that clients may send instead of logging in."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Note(models.Model):
    """A text that its owner reads and writes through the API."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notes")
    text = models.CharField(max_length=500)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.text


class ApiKey(models.Model):
    """A key that was issued to a user: `<key_id>.<secret>`, of which only a digest is kept."""

    key_id = models.CharField(max_length=32, unique=True)
    secret_digest = models.CharField(max_length=64)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_keys")
    revoked = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.key_id
