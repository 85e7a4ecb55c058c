"""What a site may derive from a message: children with tables of their own, and a proxy that shows some."""

from __future__ import annotations

from typing import Any

from django.db import models

from esms_viber.models import OutboundViberMessage


class Reminder(OutboundViberMessage):
    appointment = models.CharField(max_length=40)
    seen = models.BooleanField(default=False)


class LastReminder(Reminder):
    signed_by = models.CharField(max_length=40, blank=True)


class Ticket(OutboundViberMessage):
    """Its primary key is not the message's id."""

    number = models.BigAutoField(primary_key=True)


class Voucher(OutboundViberMessage):
    code = models.CharField(max_length=12, primary_key=True)


class OfCampaign(models.Manager["Birthday"]):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(campaign="birthday")


class Birthday(OutboundViberMessage):
    objects = OfCampaign()  # type: ignore[assignment,misc] # narrower than the parent's, as a site's may be

    class Meta:
        proxy = True
