"""The choice of a kind of message, before its parts are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminRadioSelect
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import get_settings
from ..validation import FILLED, KIND_FIELDS, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

_KIND = gettext_lazy("Kind of message")


class KindChoice(AdminRadioSelect):
    """A group with a name: Django 5.2 gives it none."""

    template_name = "admin/esms_viber/outboundvibermessage/kinds.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        return {**context, "label": _KIND, "input_template": AdminRadioSelect.template_name}


class KindField(forms.ChoiceField):
    """Not required: without JavaScript all parts are shown, and those that are filled make the kind."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            label=_KIND,
            choices=Kind.choices,
            widget=KindChoice(),
            required=False,
            **options,
        )

    def widget_attrs(self, widget: forms.Widget) -> dict[str, str]:
        # For the script: the parts that each kind has, in the order of the choices.
        return {"data-parts": " ".join(",".join(sorted(FILLED[kind])) for kind in Kind)}


def hold_to_kind(form: forms.BaseForm, parts: Mapping[str, str]) -> None:
    """Add an error for each part that the chosen kind lacks, or does not have; nothing where none was chosen."""
    chosen = form.cleaned_data.get("kind")
    if not chosen:
        return
    wanted = FILLED[Kind(chosen)]
    for name in KIND_FIELDS:
        if name == "content" or name not in wanted:
            _drop_guess(form, name)
        if name in form.errors:
            continue
        if parts[name] and name not in wanted:
            form.add_error(name, _("The chosen kind of message has no such part: clear it, or choose another kind."))
        elif not parts[name] and name in wanted:
            form.add_error(name, _("The chosen kind of message needs this part: fill it in, or choose another kind."))


def _drop_guess(form: forms.BaseForm, name: str) -> None:
    """The model guesses by the other parts what is missing to a message; here it is known what it is to be."""
    if all(error.code == "kind" for error in form.errors.as_data().get(name, ())):
        form.errors.pop(name, None)


def show_limit(form: forms.BaseForm) -> None:
    """Tell the script how long a label may be."""
    try:
        form.fields["button_label"].widget.attrs["data-limit"] = get_settings().MAX_LABEL_LENGTH
    except ImproperlyConfigured:
        return  # said when the form is checked
