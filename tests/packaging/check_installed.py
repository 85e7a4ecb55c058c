"""Run with a Python that has the wheel and nothing else of this repository: is all of it there, and does it work?"""

from __future__ import annotations

from importlib import metadata, resources

import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "esms_viber",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ESMS_VIBER={"GATEWAY": "esms_viber.gateways.console.ConsoleGateway", "BRANDNAME": "SHOP"},
    USE_TZ=True,
    SECRET_KEY="packaging",
)
django.setup()

files = {path.name for path in resources.files("esms_viber").rglob("*")}
for name in ("py.typed", "0001_initial.py", "django.mo"):
    assert name in files, f"{name} is not in the wheel"
for folder, suffix in (("templates", ".html"), ("static", ".css")):
    assert list((resources.files("esms_viber") / folder).rglob("*" + suffix)), (
        f"no {suffix} under {folder} in the wheel"
    )

(plugin,) = metadata.distribution("django-esms-viber").entry_points.select(group="pytest11")
assert (resources.files("esms_viber") / f"{plugin.module.removeprefix('esms_viber.')}.py").is_file()

call_command("migrate", verbosity=0)

from esms_viber.services import send_viber_message  # noqa: E402 - needs the settings above

message = send_viber_message("0901 888 484", "Xin chào")
assert message.status == "sent", message.error_message
