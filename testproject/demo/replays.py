"""The second part of the demo: what a rule in shadow mode would refuse, by the site's own log."""

from __future__ import annotations

import re

from testproject.demo import servers
from testproject.demo.stages import Stage

RULE = "Orders, on trial"
"""A rule in shadow mode, which refused nobody."""

LIMIT = re.compile(rf"^ *(\d+) +\d+  .*\(rule “{RULE}”\)$", re.MULTILINE)


def show_replay(stage: Stage) -> None:
    """Replay the traffic so far with the rule enforced, and compare it with what was sent."""
    screen = stage.screen
    screen.title("The same traffic with another rule, replayed from the access log")
    log = servers.access_log(stage.directory)
    report = servers.manage(stage.environment, "ratelimit_replay", str(log), "--enforce", RULE)
    screen.line(
        "  A log tells users, but no keys: the service account counts as its address here.\n"
    )
    for line in report.split("\n\nClients")[0].splitlines():
        screen.line(f"  {line}".rstrip())
    screen.line()
    [limit] = stage.samples["limits"][RULE]
    asked = log.read_text(errors="replace").count("/api/orders/")
    found = LIMIT.search(report)
    refused = int(found[1]) if found else 0
    screen.promise(
        f"enforced, “{RULE}” would have refused all but {limit['requests']} a minute",
        0 < refused <= asked - limit["requests"],
        f"{refused} of {asked}",
    )
