"""How the values that every request needs are made in half the time."""

filled = tuple.__new__
"""Makes a named tuple of all its values, as in `filled(Charge, (subject, policy, 1))`: what its own
constructor does besides takes as long again."""
