from typing import Any

from django.db import migrations


def switch(mode: str) -> Any:
    def write(apps: Any, editor: Any) -> None:
        rules = apps.get_model("django_ratelimit_tiers", "EndpointRule").objects
        rules.filter(name="migrated").update(mode=mode)

    return write


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_rules")]
    operations = [migrations.RunPython(switch("off"), switch("enforce"))]
