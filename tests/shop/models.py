"""A site's own model, as the tests need one."""

from __future__ import annotations

import uuid

from django.db import models


class Order(models.Model):
    phone = models.CharField(max_length=20)
    paid = models.BooleanField(default=False)
    note = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"Order with {self.note}" if self.note else f"Order {self.pk}"


class Parcel(models.Model):
    """With a primary key that is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    note = models.CharField(max_length=20, blank=True)


class Voucher(models.Model):
    """With a primary key of the site's own making."""

    code = models.CharField(max_length=20, primary_key=True)
    note = models.CharField(max_length=20, blank=True)
