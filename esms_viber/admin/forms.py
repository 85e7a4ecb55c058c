"""The forms in which a message, or a template for messages, is written."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils.translation import gettext_lazy as _

from ..conf import get_settings
from ..delivery.payload import QueryLimit
from ..models import OutboundViberMessage
from ..models.choices import KIND_FIELDS
from ..models.placeholders import comparable, fill_parts, placeholders_in, visible
from .filling import FROM_TEMPLATE, typed_values
from .form_fields import (
    BrandnameInput,
    KindField,
    NotedInput,
    NotedTextarea,
    hold_to_kind,
    refuse_past,
    show_limit,
    tell_what_to_take_out,
)
from .notices import not_set_up

if TYPE_CHECKING:
    BaseForm = forms.ModelForm[Any]
else:
    BaseForm = forms.ModelForm


def _url_input() -> AdminTextInputWidget:
    return AdminTextInputWidget(attrs={"class": "vTextField vURLField", "inputmode": "url", "placeholder": "https://"})


_WIDGETS: dict[str, Any] = {
    "content": NotedTextarea(attrs={"rows": 6}),
    "image_url": _url_input(),
    "button_label": NotedInput(),
    "button_url": _url_input(),
}


class WritingForm(BaseForm):
    """The form in which the parts of a message are written. It is accepted even where no gateway is set up."""

    kind = KindField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "content" in self.fields:  # which a message that can only be viewed does not have
            self.initial.setdefault("kind", self.instance.kind or "")
            show_limit(self)

    @property
    def shortest(self) -> OutboundViberMessage:
        """The message, as far as it is known."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc] # not in the stubs
        # Django has called the model's own validation by now. The model knows no gateway, so its limit is checked here.
        if self.instance.kind:
            try:
                QueryLimit().validate(self.shortest)
            except ValidationError as error:
                self.add_error(None, error)
        try:
            get_settings()
        except ImproperlyConfigured as error:
            # Refuse the form, because the message was held to the default limits, which may not be the site's.
            self.add_error(None, not_set_up(error))
        # The errors of the model and the gateway are on the fields now. Say them as a person at the form needs them.
        hold_to_kind(self, vars(self.instance))
        tell_what_to_take_out(self, [self.shortest])


class MessageForm(WritingForm):
    """The form of one message. Texts of a template are filled in before they are checked."""

    class Meta:
        error_messages: ClassVar[dict[str, Any]] = {
            "dedupe_key": {"unique": _("A message with this key exists already; it is not sent a second time.")}
        }
        widgets: ClassVar[dict[str, Any]] = {
            "phone": NotedInput(note="becomes", attrs={"type": "tel", "autocomplete": "off"}),
            "brandname": BrandnameInput(),
            **_WIDGETS,
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "purpose" in self.fields:
            self.fields["purpose"].required = False  # because it has a default

    @property
    def shortest(self) -> OutboundViberMessage:
        message: OutboundViberMessage = self.instance
        return message

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if FROM_TEMPLATE in self.data:
            data |= fill_parts({name: data[name] for name in KIND_FIELDS if data.get(name)}, typed_values(self.data))
        return data

    def _post_clean(self) -> None:
        super()._post_clean()
        if FROM_TEMPLATE in self.data:
            # Only now, because a part that has an error counts as missing in the model's validation.
            self._ask_for_values()
        refuse_past(self)

    def _ask_for_values(self) -> None:
        values = typed_values(self.data)
        for name in KIND_FIELDS:
            written = placeholders_in([self.data.get(name, "")])
            if missing := [visible(each) for each in written if comparable(each) not in values]:
                sentence = _("Give a value for: %(names)s.")
                self.add_error(name, ValidationError(sentence, "missing", {"names": ", ".join(missing)}))


class TemplateForm(WritingForm):
    """The form of a template. New names in braces are saved once that is confirmed, because code has to give values."""

    class Meta:
        widgets = _WIDGETS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.placeholders if self.instance.pk else None
        self._known = None if stored is None else set(map(comparable, stored))
        self.new_names: list[str] = []
        """Names in braces that have to be confirmed."""

    @property
    def shortest(self) -> OutboundViberMessage:
        nothing = dict.fromkeys(map(comparable, self.instance.placeholders), "")
        return OutboundViberMessage(**fill_parts(self.instance.parts, nothing))

    def _post_clean(self) -> None:
        super()._post_clean()
        if self._known is None or self.errors or REHEARSE in self.data:
            return
        confirmed = placeholders_in([self.data.get(CONFIRMED_NAMES, "")]) if CONFIRM_NAMES in self.data else []
        known = self._known | set(map(comparable, confirmed))
        names = self.instance.placeholders
        if any(comparable(name) not in known for name in names):
            self.new_names = [visible(name) for name in names if comparable(name) not in self._known]
            sentence = _(
                "New in braces: %(names)s. Code that uses this template gives no value for it yet, and "
                'template="%(template)s" would fail with a ValidationError that names it. Change the code first, or '
                "save it all the same."
            )
            params = {"names": ", ".join(self.new_names), "template": self.instance.name}
            self.add_error(None, ValidationError(sentence, "new_names", params))


REHEARSE = "_rehearse"
"""The button *Send me this first*, which saves nothing."""

CONFIRM_NAMES, CONFIRMED_NAMES = "_confirm_names", "confirmed_names"
"""The second button, and the field with the names in braces that it confirms."""


def fingerprint(form_id: str, message: OutboundViberMessage) -> str:
    """Return the digest of a form and its content: the same if a double click posts the form twice."""
    values = [str(getattr(message, name)) for name in message.CALLERS_COLUMNS]
    return hashlib.sha256(json.dumps([form_id, *values]).encode()).hexdigest()
