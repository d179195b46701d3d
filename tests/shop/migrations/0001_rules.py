from typing import Any

from django.db import migrations


def add_rule(apps: Any, editor: Any) -> None:
    rules = apps.get_model("django_ratelimit_tiers", "EndpointRule").objects
    rule = rules.create(name="migrated", path="/plain/", identify_by="ip")
    rule.policies.create(requests=1, period=86_400, algorithm="fixed_window")


class Migration(migrations.Migration):
    dependencies = [("django_ratelimit_tiers", "0001_initial")]
    operations = [migrations.RunPython(add_rule, migrations.RunPython.noop)]
