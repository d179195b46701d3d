"""Service accounts compiled for quick answers: who is exempt, and from where."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from django_ratelimit_tiers.core.addresses import NetworkMap, Networks, parse_networks
from django_ratelimit_tiers.models import ServiceAccount

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompiledAccount:
    """A service account as requests see it; `expires_at` in epoch seconds."""

    id: int
    name: str
    networks: Networks | None
    expires_at: float

    def holds(self, address: str, now: float) -> bool:
        """Return whether the account counts for a request from an address."""
        if now >= self.expires_at:
            return False
        return self.networks is None or self.networks.contains(address)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The active service accounts by what identifies them.

    A user may have several, such as one for each network; a key has one.
    """

    by_user: dict[str, list[CompiledAccount]] = field(default_factory=dict)
    by_key: dict[str, CompiledAccount] = field(default_factory=dict)
    by_network: tuple[CompiledAccount, ...] = ()
    _map: NetworkMap[CompiledAccount] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owned = [(account.networks, account) for account in self.by_network if account.networks]
        object.__setattr__(self, "_map", NetworkMap(owned))

    def of_address(self, address: str, now: float) -> CompiledAccount | None:
        """Return the account that an address alone identifies."""
        return next((a for a in self._map.owners(address) if a.holds(address, now)), None)

    def of_key(self, digests: Iterable[str], address: str, now: float) -> CompiledAccount | None:
        """Return the account that a presented key identifies from this address."""
        found = filter(None, map(self.by_key.get, digests))
        return next((account for account in found if account.holds(address, now)), None)

    def of_user(self, user: str, address: str, now: float) -> CompiledAccount | None:
        """Return the account that a user identifies from this address."""
        return next((a for a in self.by_user.get(user, ()) if a.holds(address, now)), None)


def compile_accounts(rows: Iterable[ServiceAccount]) -> Accounts:
    """Return the active rows as accounts; expiry is looked at with each request.

    A row that no form would have saved is left out and logged: it exempts nobody.
    """
    by_user: dict[str, list[CompiledAccount]] = {}
    by_key, by_network = {}, []
    for row in rows:
        try:
            networks = parse_networks(row.networks.split()) if row.networks else None
        except ValueError as error:
            logger.error("service account %r is not in force: %s", row.name, error)
            continue
        account = CompiledAccount(row.pk, row.name, networks, row.expires_at.timestamp())
        if row.user_id is not None:
            by_user.setdefault(f"user:{row.user_id}", []).append(account)
        if row.key_digest:
            by_key[row.key_digest] = account
        if row.user_id is None and not row.key_digest and networks:
            by_network.append(account)
    return Accounts(by_user, by_key, tuple(by_network))
