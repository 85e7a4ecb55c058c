"""The site's own models in its admin, with their messages."""

from __future__ import annotations

from django.contrib import admin

from esms_viber.admin import ViberMessageInline

from .models import Order, Parcel, Voucher


@admin.register(Order, Parcel, Voucher)
class WithMessages(admin.ModelAdmin):
    inlines = [ViberMessageInline]
