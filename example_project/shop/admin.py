from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from esms_viber.admin import ViberMessageInline

from .models import Order


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["__str__", "phone", "items", "amount", "status", "viber", "created_at"]
    list_editable = ["status"]
    list_filter = ["status"]
    search_fields = ["customer", "phone", "items"]
    inlines = [ViberMessageInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        return super().get_queryset(request).with_viber_status()

    @admin.display(description=_("Viber message"), empty_value="–")
    def viber(self, order: Order) -> str | None:
        return order.viber_status_label or None
