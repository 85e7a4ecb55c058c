"""A site's own model, as the tests need one."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    phone = models.CharField(max_length=20)
    paid = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"Order {self.pk}"
