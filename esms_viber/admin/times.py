"""Times as people write them into the admin's forms."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.utils import timezone
from django.utils.formats import get_format
from django.utils.translation import gettext as _

_DAY_FIRST = ["%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y"]
_LENIENCY = dt.timedelta(minutes=10)
"""Between the choice of "now" and the form that arrives."""


class MomentInput(AdminSplitDateTime):
    """With a label for each of its two inputs: Django 5.2 has the words beside them, and no label."""

    template_name = "admin/esms_viber/outboundvibermessage/moment.html"
    label: Any = ""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        return {**super().get_context(name, value, attrs), "label": self.label}


class MomentField(forms.SplitDateTimeField):
    """Takes dates with the day first where they are shown so: Django takes 05/12 for the 12th of May in Vietnamese."""

    def __init__(self, **options: Any) -> None:
        formats = list(get_format("DATE_INPUT_FORMATS"))
        if str(get_format("SHORT_DATE_FORMAT"))[:1] in "dj":
            formats = [*_DAY_FIRST, *(known for known in formats if not known.startswith(("%m", "%b", "%B")))]
        # The admin's calendar writes the year first.
        super().__init__(**{"input_date_formats": ["%Y-%m-%d", *formats]} | options)
        self.widget.widgets[0].attrs["placeholder"] = _today().strftime(formats[0])
        self.widget.label = self.label


def _today() -> dt.date:
    now = timezone.now()
    return (timezone.localtime(now) if timezone.is_aware(now) else now).date()


OVERRIDES: dict[str, Any] = {"form_class": MomentField, "widget": MomentInput}


def refuse_past(form: forms.BaseForm) -> None:
    """Add an error to a time that has passed: sent at once, or never, is hardly what was meant."""
    now = timezone.now()
    start, end = form.cleaned_data.get("send_at"), form.cleaned_data.get("expires_at")
    if start and start < now - _LENIENCY:
        form.add_error("send_at", _("This time has passed. Leave it empty to send now, or choose a later one."))
    if end and end <= now:
        form.add_error("expires_at", _("This time has passed: nothing would be sent. Choose a later one."))
