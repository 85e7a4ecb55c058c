"""How much the text of a message can still grow, in a sentence below it, and how much of one must go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils.translation import ngettext

from ..amounts import grouped
from ..models import OutboundViberMessage
from ..validation import characters_left


@dataclass(frozen=True, slots=True)
class Room:
    sentence: str = ""
    is_over: bool = False


def room(messages: Iterable[OutboundViberMessage]) -> Room:
    """What the longest of the messages leaves."""
    left = _least_left(messages)
    if left < 0:
        return Room(_take_out(-left), is_over=True)
    left = left if left < 20 else left // 10 * 10
    sentence = ngettext("about one character left", "about %(count)s characters left", left)
    return Room(sentence % {"count": grouped(left)})


def tell_what_to_take_out(form: forms.BaseForm, messages: Iterable[OutboundViberMessage]) -> None:
    """Say of what is too long for the gateway how much must go, once, and without the encoded lengths."""
    for name, errors in form.errors.as_data().items():
        too_long = [error for error in errors if error.code == "query_length" or _is_of_text(name, error)]
        if not too_long:
            continue
        told = excess = max((error.params or {}).get("excess", 0) for error in too_long)
        if name == "content":
            excess = max(told, -_least_left(messages))
        if excess == told and not any(error.code == "query_length" for error in too_long):
            continue  # Viber's own limit is the nearer one, and its sentence names the characters
        sentence = _take_out(excess) if name == "content" else _shorten_link(excess)
        others = [error for error in errors if error not in too_long]
        del form.errors[name]
        form.add_error(name, ValidationError([*others, ValidationError(sentence, code="query_length")]))


def _is_of_text(name: str, error: ValidationError) -> bool:
    return name == "content" and error.code == "max_length"


def _least_left(messages: Iterable[OutboundViberMessage]) -> int:
    return min(map(characters_left, messages))


def _take_out(characters: int) -> str:
    sentence = ngettext(
        "Too long: take out one character.", "Too long: take out about %(count)s characters.", characters
    )
    return sentence % {"count": grouped(_rounded_up(characters))}


def _shorten_link(characters: int) -> str:
    sentence = ngettext(
        "Too long: shorten the link by one character.",
        "Too long: shorten the link by about %(count)s characters.",
        characters,
    )
    return sentence % {"count": grouped(_rounded_up(characters))}


def _rounded_up(number: int) -> int:
    return number if number < 20 else -(-number // 10) * 10


class _Noted(forms.Widget):
    """An input with a remark of ours below it, in one element, because Django 5.2 lays out its siblings in a row."""

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
