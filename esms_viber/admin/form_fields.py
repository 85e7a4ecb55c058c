"""Form fields and widgets: the kind of a message, a moment, and texts that show how much room is left."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminRadioSelect, AdminSplitDateTime, AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils import timezone
from django.utils.formats import get_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..account import remembered_brandnames
from ..conf import get_settings
from ..delivery.payload import characters_left
from ..formatting import grouped
from ..models import OutboundViberMessage
from ..models.choices import FILLED, KIND_FIELDS, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping


_KIND = gettext_lazy("Kind of message")


class KindChoice(AdminRadioSelect):
    """Radio buttons in a group with a name, because Django 5.2 gives it none."""

    template_name = "admin/esms_viber/outboundvibermessage/kinds.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        return {**context, "label": _KIND, "input_template": AdminRadioSelect.template_name}


class KindField(forms.ChoiceField):
    """The choice of a kind. It is optional, because without JavaScript the filled parts decide the kind."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            label=_KIND,
            choices=Kind.choices,
            widget=KindChoice(),
            required=False,
            **options,
        )

    def widget_attrs(self, widget: forms.Widget) -> dict[str, str]:
        # The script reads here which parts each kind has, in the order of the choices.
        return {"data-parts": " ".join(",".join(sorted(FILLED[kind])) for kind in Kind)}


def hold_to_kind(form: forms.BaseForm, parts: Mapping[str, str]) -> None:
    """Add an error for each part that the chosen kind needs and is empty, or does not have and is filled."""
    chosen = form.cleaned_data.get("kind")
    if not chosen:
        return
    wanted = FILLED[Kind(chosen)]
    for name in KIND_FIELDS:
        is_guess = all(error.code == "kind" for error in form.errors.as_data().get(name, ()))
        if is_guess and (name == "content" or name not in wanted):
            # The model guesses the kind by the filled parts, and asks for this one. The choice overrules the guess.
            form.errors.pop(name, None)
        if name in form.errors:
            continue
        if parts[name] and name not in wanted:
            form.add_error(name, _("The chosen kind of message has no such part: clear it, or choose another kind."))
        elif not parts[name] and name in wanted:
            form.add_error(name, _("The chosen kind of message needs this part: fill it in, or choose another kind."))


def show_limit(form: forms.BaseForm) -> None:
    """Tell the script how long a label may be."""
    try:
        form.fields["button_label"].widget.attrs["data-limit"] = get_settings().MAX_LABEL_LENGTH
    except ImproperlyConfigured:
        return  # because checking the form will tell it


@dataclass(frozen=True, slots=True)
class Room:
    """How much longer a text may get, in words."""

    sentence: str = ""
    is_over: bool = False


def room(messages: Iterable[OutboundViberMessage]) -> Room:
    """Tell how much room the longest of the messages leaves."""
    left = _least_left(messages)
    if left < 0:
        return Room(_take_out(-left), is_over=True)
    left = left if left < 20 else left // 10 * 10
    sentence = ngettext("about one character left", "about %(count)s characters left", left)
    return Room(sentence % {"count": grouped(left)})


def tell_what_to_take_out(form: forms.BaseForm, messages: Iterable[OutboundViberMessage]) -> None:
    """Put one sentence that tells how much to take out in place of the errors about a field that is too long."""
    for name, errors in form.errors.as_data().items():
        codes = {"query_length", "max_length"} if name == "content" else {"query_length"}
        too_long = [error for error in errors if error.code in codes]
        if not too_long:
            continue
        excess = reported = max((error.params or {}).get("excess", 0) for error in too_long)
        if name == "content":
            excess = max(reported, -_least_left(messages))
        if excess == reported and all(error.code == "max_length" for error in too_long):
            # Keep the sentence about Viber's own limit, because that is the nearer one and it names the characters.
            continue
        if name == "content":
            sentence = _take_out(excess)
        else:
            shorten = ngettext(
                "Too long: shorten the link by one character.",
                "Too long: shorten the link by about %(count)s characters.",
                excess,
            )
            sentence = shorten % {"count": grouped(_rounded_up(excess))}
        others = [error for error in errors if error not in too_long]
        del form.errors[name]
        form.add_error(name, ValidationError([*others, ValidationError(sentence, code="query_length")]))


def _least_left(messages: Iterable[OutboundViberMessage]) -> int:
    return min(map(characters_left, messages))


def _take_out(characters: int) -> str:
    sentence = ngettext(
        "Too long: take out one character.", "Too long: take out about %(count)s characters.", characters
    )
    return sentence % {"count": grouped(_rounded_up(characters))}


def _rounded_up(number: int) -> int:
    return number if number < 20 else -(-number // 10) * 10


class _Noted(forms.Widget):
    """An input and a remark below it, in one element, because Django 5.2 lays out siblings in a row."""

    template_name = "admin/esms_viber/outboundvibermessage/noted.html"
    input_template: str
    room = Room()

    def __init__(self, *, note: str = "counter", **options: Any) -> None:
        super().__init__(**options)
        self.note = note

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        return {**context, "input_template": self.input_template, "note": self.note, "room": self.room}


class NotedInput(_Noted, AdminTextInputWidget):
    input_template = AdminTextInputWidget.template_name


class NotedTextarea(_Noted, AdminTextareaWidget):
    input_template = AdminTextareaWidget.template_name


class BrandnameInput(AdminTextInputWidget):
    """An input that offers the brand names that eSMS told last, and takes any other."""

    template_name = "admin/esms_viber/outboundvibermessage/brandname.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        offered = remembered_brandnames()
        if offered:
            context["widget"]["attrs"]["list"] = f"{context['widget']['attrs'].get('id', name)}_offered"
        return {**context, "input_template": AdminTextInputWidget.template_name, "offered": offered}


_DAY_FIRST = ["%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y"]
_LENIENCY = dt.timedelta(minutes=10)
"""The time that may pass between the choice of "now" and the arrival of the form."""


class MomentInput(AdminSplitDateTime):
    """A date and a time with a label each, because Django 5.2 only puts the words beside them."""

    template_name = "admin/esms_viber/outboundvibermessage/moment.html"
    label: Any = ""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        return {**super().get_context(name, value, attrs), "label": self.label}


class MomentField(forms.SplitDateTimeField):
    """A moment read day first where dates are shown so, because Django's Vietnamese reads 05/12 as the 12th of May."""

    def __init__(self, **options: Any) -> None:
        formats = list(get_format("DATE_INPUT_FORMATS"))
        if str(get_format("SHORT_DATE_FORMAT"))[:1] in "dj":
            formats = [*_DAY_FIRST, *(known for known in formats if not known.startswith(("%m", "%b", "%B")))]
        # Accept the year first, too, because the admin's calendar writes it so.
        super().__init__(**{"input_date_formats": ["%Y-%m-%d", *formats]} | options)
        now = timezone.now()
        today = (timezone.localtime(now) if timezone.is_aware(now) else now).date()
        self.widget.widgets[0].attrs["placeholder"] = today.strftime(formats[0])
        self.widget.label = self.label


OVERRIDES: dict[str, Any] = {"form_class": MomentField, "widget": MomentInput}


def refuse_past(form: forms.BaseForm) -> None:
    """Add an error to a time that has passed, because the message would go out at once, or never."""
    now = timezone.now()
    start, end = form.cleaned_data.get("send_at"), form.cleaned_data.get("expires_at")
    if start and start < now - _LENIENCY:
        form.add_error("send_at", _("This time has passed. Leave it empty to send now, or choose a later one."))
    if end and end <= now:
        form.add_error("expires_at", _("This time has passed: nothing would be sent. Choose a later one."))
