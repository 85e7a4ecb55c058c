"""People who have opted out, in Django's admin: the list, and the page of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.widgets import AdminTextInputWidget
from django.contrib.messages import constants as levels
from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import formatting, services
from ..models import ViberOptOut
from ..phones import spaced_phone, validate_phone
from . import search
from .base import in_one_transaction
from .consent import page_of
from .notices import user_of
from .pages import BoundedPaginator, asked_for
from .routes import framed, route

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[ViberOptOut]
    ModelForm = forms.ModelForm[ViberOptOut]
else:
    ModelAdmin = admin.ModelAdmin
    ModelForm = forms.ModelForm


class NewOptOutForm(ModelForm):
    """The form of a new opt-out. Its phone may have opted out already: then the wider scope stands."""

    phone: Any = ViberOptOut._meta.get_field("phone").formfield(
        validators=[validate_phone], widget=AdminTextInputWidget(attrs={"type": "tel", "autocomplete": "off"})
    )

    class Meta:
        # Left out, because the model refuses a phone that is there already.
        exclude = ("phone",)


class ScopeFilter(admin.ChoicesFieldListFilter):
    """Django's filter under a title of its own, because the column is called "gets no more"."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = _("what they have opted out of")


@admin.register(ViberOptOut)
class ViberOptOutAdmin(ModelAdmin):
    list_display = ("phone_column", "scope", "note", "created_column", "user_column")
    list_filter = (("scope", ScopeFilter),)
    # Named for the search box; `search` reads a phone in any spelling.
    search_fields = ("phone",)
    # By the columns that have an index.
    sortable_by = ("phone_column", "created_column")
    # The whole table would be counted beside every search.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["esms_viber/admin.css"]}

    # -- the list ------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        # Imported with the URLs, because reading lists of people takes a sixth of the app's time to load.
        from .opt_out_paste import paste

        return [route(self, "paste/", paste, permission="add"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ViberOptOut]:
        # Read where they are written, because who has just added one looks for it in the list.
        rows = super().get_queryset(request)
        return rows.using(ViberOptOut.objects.write_alias()).prefetch_related("user")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ViberOptOut], search_term: str
    ) -> tuple[QuerySet[ViberOptOut], bool]:
        return search.find_phone(queryset, search_term), False

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return BoundedPaginator(*args, page=asked_for(request), **kwargs)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        with in_one_transaction(request):
            response = super().changelist_view(request, extra_context)
        if "cl" not in (getattr(response, "context_data", None) or {}):  # because an action may ask on its own page
            return response
        return framed(response, "opt_outs_frame")

    @admin.display(description=gettext_lazy("phone"), ordering="phone")
    def phone_column(self, found: ViberOptOut) -> str:
        return spaced_phone(found.phone)

    @admin.display(description=gettext_lazy("since"), ordering="pk")
    def created_column(self, found: ViberOptOut) -> str | None:
        return formatting.moment(found.created_at)

    @admin.display(description=gettext_lazy("entered by"))
    def user_column(self, found: ViberOptOut) -> str | None:
        return str(found.user) if found.user else None

    # -- one of them ---------------------------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: ViberOptOut | None = None) -> Any:
        if obj is None:
            told = gettext_lazy("Messages that wait for this phone are cancelled when their turn comes.")
            return [(None, {"fields": ("phone", "scope", "note"), "description": told})]
        told = gettext_lazy(
            "Delete this opt-out to let the phone get messages again. What was cancelled stays so until somebody sends "
            "it."
        )
        fields = ("phone_column", "scope", "note", "created_column", "user_column")
        return [(None, {"fields": fields, "description": told})]

    def get_readonly_fields(self, request: HttpRequest, obj: ViberOptOut | None = None) -> Any:
        shown = ("phone_column", "created_column", "user_column") if obj else ()
        return (*super().get_readonly_fields(request, obj), *shown)

    def get_form(
        self, request: HttpRequest, obj: ViberOptOut | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = {"form": NewOptOutForm} if obj is None else {}
        return super().get_form(request, obj, change, **form, **kwargs)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            with in_one_transaction(request):
                return super().changeform_view(request, *args, **kwargs)
        except IntegrityError:
            # Another request has just added the phone, and this transaction could not see it: a new one can.
            with in_one_transaction(request):
                return super().changeform_view(request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with in_one_transaction(request):
            return super().delete_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: ViberOptOut, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        phone = form.cleaned_data["phone"]
        known = ViberOptOut.objects.for_writing().filter(phone=phone).first()
        stored = services.opt_out(phone, scope=obj.scope, note=obj.note, user=user_of(request))
        vars(obj).update(vars(stored))
        if known is not None:
            # Read by `log_addition()` and `response_add()`.
            obj.was_widened = known.scope != stored.scope  # type: ignore[attr-defined] # no column, and for this request alone

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        match getattr(obj, "was_widened", None):
            case None:
                return super().log_addition(request, obj, message)
            case True:
                return self.log_change(request, obj, [{"changed": {"fields": [str(_("gets no more"))]}}])
            case _:
                return None

    def response_add(
        self, request: HttpRequest, obj: ViberOptOut, post_url_continue: str | None = None
    ) -> HttpResponse:
        was_widened = getattr(obj, "was_widened", None)
        goes_on = {IS_POPUP_VAR, "_continue", "_addanother"} & request.POST.keys()
        if IS_POPUP_VAR in request.POST or (was_widened is None and goes_on):
            return super().response_add(request, obj, post_url_continue)
        level = levels.SUCCESS
        if was_widened is None:
            sentence = (
                _("%(phone)s gets no messages any more.")
                if obj.scope == ViberOptOut.Scope.EVERYTHING
                else _("%(phone)s gets no promotional messages any more.")
            )
        elif was_widened:
            sentence = _("%(phone)s had opted out of promotional messages, and gets no message at all any more.")
        else:
            sentence = _("%(phone)s has opted out already, as you see here. Nothing was changed.")
            level = levels.WARNING
        self.message_user(request, sentence % {"phone": spaced_phone(obj.phone)}, level)
        if was_widened is None or not self.has_view_or_change_permission(request, obj):
            return self.response_post_save_add(request, obj)
        return HttpResponseRedirect(page_of(obj, self.admin_site))
