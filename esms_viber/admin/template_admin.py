"""Templates in Django's admin: written and previewed as messages are, and chosen where messages are written."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, QueryDict
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..database import non_atomic_requests
from ..models import OutboundViberMessage, ViberTemplate
from ..models.placeholders import comparable
from ..models.template import TemplateQuerySet
from . import display
from .base import in_one_transaction
from .filling import FROM_TEMPLATE, example, typed_values, value_inputs
from .form_fields import room
from .forms import CONFIRM_NAMES, CONFIRMED_NAMES, REHEARSE, TemplateForm
from .preview import CHECK, bubble, checked, own_brand
from .rehearsal import ShownAgain, WritingAdmin, may_rehearse, message_admin_of, offer, rehearse
from .routes import framed

_VIEWS_THAT_CALL_ESMS = ("_add", "_change")
_MOST_OFFERED = 500


@admin.register(ViberTemplate)
class ViberTemplateAdmin(WritingAdmin):
    form = TemplateForm
    list_display = ("name", "title", "purpose", "kind_column")
    search_fields = ("name", "title")
    fieldsets = (
        (None, {"fields": ("name", "title", "kind", "content", "image_url", "button_label", "button_url")}),
        (gettext_lazy("Sending"), {"fields": ("purpose",)}),
    )

    class Media:
        css = {"all": ["esms_viber/admin.css", "esms_viber/phone.css"]}
        js = ["esms_viber/writing.js"]

    @admin.display(description=gettext_lazy("kind"))
    def kind_column(self, template: ViberTemplate) -> str | None:
        return display.kind(template)

    def get_urls(self) -> list[URLPattern]:
        urls = super().get_urls()
        for url in urls:
            if (url.name or "").endswith(_VIEWS_THAT_CALL_ESMS):
                url.callback = non_atomic_requests(url.callback)
        return urls

    def get_readonly_fields(self, request: HttpRequest, obj: ViberTemplate | None = None) -> Any:
        fixed = () if obj is None else ("name",)
        return (*super().get_readonly_fields(request, obj), *fixed)

    def get_fieldsets(self, request: HttpRequest, obj: ViberTemplate | None = None) -> Any:
        if obj is None or self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        # Where it can only be looked at, the kind is no field of the form.
        fieldsets: Any = super().get_fieldsets(request, obj)
        (title, options), *others = fieldsets
        shown = tuple(name for name in options["fields"] if name != "kind" and getattr(obj, name))
        return [(title, {**options, "fields": shown}), *others]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if CHECK in request.POST or REHEARSE in request.POST:
            form = self.written(request, object_id)
            values = typed_values(request.POST)
            if CHECK in request.POST:
                return checked(form, [_with_values(form.instance, values)])
            messages = message_admin_of(self.admin_site)
            if messages is None:
                raise PermissionDenied
            if not form.errors:
                rehearse(messages, request, example(form.instance, values), terms=form.instance)
        with in_one_transaction(request):
            return super().changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: ViberTemplate | None = None,
    ) -> Any:
        form = context["adminform"].form
        written: ViberTemplate = form.instance  # which holds what was typed, even if the form was refused
        may_save = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        values = typed_values(request.POST)
        if "content" in form.fields:
            form.fields["content"].widget.room = room([_with_values(written, values)])
        messages = message_admin_of(self.admin_site)
        own_form = f"{self.opts.model_name}_form"
        context |= {
            "bubble": bubble(example(written, values), request),
            "own_brand": own_brand(),
            "viber_form": own_form,
            "viber_values": value_inputs(written.parts.values(), request.POST) if may_save else None,
            "viber_values_remark": _("Samples for this preview; they are not stored."),
            "viber_new_names": getattr(form, "new_names", []),
            "viber_confirm_names": CONFIRM_NAMES,
            "viber_confirmed_names": CONFIRMED_NAMES,
        }
        if may_save and messages is not None and may_rehearse(messages, request):
            context["viber_rehearsal"] = offer(request, form=own_form)
        return framed(super().render_change_form(request, context, add, change, form_url, obj), "template_frame")

    # -- deleting ------------------------------------------------------------------------------------------------------

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        with in_one_transaction(request):
            response = super().delete_view(request, object_id, extra_context)
        return framed(response, "template_delete_frame")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        with in_one_transaction(request):
            response = super().changelist_view(request, extra_context)
        is_asked = "deletable_objects" in (getattr(response, "context_data", None) or {})
        return framed(response, "template_delete_frame") if is_asked else response


def _with_values(template: ViberTemplate, values: dict[str, str]) -> OutboundViberMessage:
    """Leave out the names in braces that have no value: nobody knows how long theirs will be."""
    return example(template, {**dict.fromkeys(map(comparable, template.placeholders), ""), **values})


# -- choosing one ------------------------------------------------------------------------------------------------------

TEMPLATE, FILL = "_template", "_fill"
"""The field that names a template where messages are written, and the button that fills in the form by it."""


class FilledIn(ShownAgain):
    """A form that a template has just filled in, shown without errors because nobody has tried to save it."""

    def full_clean(self) -> None:
        super().full_clean()
        self.errors.clear()  # type: ignore[attr-defined] # it is mixed into a form


def choice(model_admin: admin.ModelAdmin[Any], request: HttpRequest) -> dict[str, Any]:
    """Return what the choice of a template needs to be shown."""
    return {
        "viber_templates": list(_seen_by(model_admin, request)[:_MOST_OFFERED]),
        "viber_template": chosen(model_admin, request),
        "viber_template_name": TEMPLATE,
        "viber_fill": FILL,
    }


def chosen(model_admin: admin.ModelAdmin[Any], request: HttpRequest) -> ViberTemplate | None:
    """Return the template that was chosen, if there is one and this person may see it."""
    try:
        return _seen_by(model_admin, request).named(request.POST.get(TEMPLATE, ""))
    except ValidationError:
        return None


def filled_in(model_admin: admin.ModelAdmin[Any], request: HttpRequest) -> QueryDict:
    """Return what was posted, with the texts of the chosen template in place of those that were there."""
    data, template = request.POST.copy(), chosen(model_admin, request)
    if template is not None:
        parts = {**template.parts, "kind": template.kind or "", "purpose": template.purpose, FROM_TEMPLATE: "1"}
        for name, value in parts.items():
            data[name] = value
    return data


def _seen_by(model_admin: admin.ModelAdmin[Any], request: HttpRequest) -> TemplateQuerySet:
    rows, templates = ViberTemplate.objects.for_writing(), model_admin.admin_site._registry.get(ViberTemplate)
    return rows if templates is not None and templates.has_view_permission(request) else rows.none()
