"""Orders of a small coffee shop."""

from __future__ import annotations

import uuid
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Cast
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from esms_viber.models import OutboundViberMessage
from esms_viber.phones import validate_phone


class OrderQuerySet(models.QuerySet["Order"]):
    def with_viber_status(self) -> Self:
        """Each order with the status of its newest message, in one query."""
        newest = OutboundViberMessage.objects.filter(
            content_type__app_label="shop",
            content_type__model="order",
            object_id=Cast(OuterRef("pk"), models.CharField(max_length=64)),
        ).order_by("-pk")
        return self.annotate(viber_status=Subquery(newest.values("status")[:1]))


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new", _("new")
        PAID = "paid", _("paid")
        SHIPPED = "shipped", _("shipped")

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    """Names the order in links to customers: a running number would show them each other's orders."""
    customer = models.CharField(_("customer"), max_length=100)
    phone = models.CharField(
        _("phone"), max_length=20, validators=[validate_phone], help_text=_("A mobile number, e.g. 0901 888 484.")
    )
    items = models.CharField(_("items"), max_length=200)
    amount = models.PositiveIntegerField(_("amount (đ)"))
    status = models.CharField(_("status"), max_length=10, choices=Status, default=Status.NEW)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = OrderQuerySet.as_manager()

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"#{self.pk} {self.customer}"

    def get_absolute_url(self) -> str:
        return reverse("shop:order", args=[self.public_id])

    @property
    def price(self) -> str:
        """As prices are written in Vietnam: 260.000 đ."""
        return f"{self.amount:,} đ".replace(",", ".")

    @property
    def link(self) -> str:
        """The order's page, as it stands in a message."""
        return f"{settings.SITE_ORIGIN}{self.get_absolute_url()}"

    @property
    def viber_status_label(self) -> str:
        """Of an order from `with_viber_status()`; empty where no message was queued."""
        status: str | None = getattr(self, "viber_status", None)
        return str(OutboundViberMessage.Status(status).label) if status else ""
