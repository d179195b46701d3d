"""Signals that this package sends; all announce, none decides."""

from django.dispatch import Signal

request_throttled = Signal()
"""A request was refused. Arguments: request, decision."""

policy_edited = Signal()
"""Tiers, rules or service accounts were written. Arguments: sender (model), using, reason."""

subject_edited = Signal()
"""The tier of subjects may have changed. Arguments: sender (model), using, subjects, reason."""

store_unavailable = Signal()
"""The store stopped answering this process. Arguments: error."""

store_recovered = Signal()
"""The store answers this process again. No arguments."""

alert_opened = Signal()
"""An anomaly was seen for the first time. Arguments: alert."""

alert_closed = Signal()
"""An anomaly is over. Arguments: alert."""
