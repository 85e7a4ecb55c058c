"""The form in which a message is written."""

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
from .form_fields import (
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
    BaseForm = forms.ModelForm[OutboundViberMessage]
else:
    BaseForm = forms.ModelForm


def _url_input() -> AdminTextInputWidget:
    return AdminTextInputWidget(attrs={"class": "vTextField vURLField", "inputmode": "url", "placeholder": "https://"})


class MessageForm(BaseForm):
    """The form of one message. It accepts a draft even where no gateway is set up."""

    kind = KindField()

    class Meta:
        error_messages: ClassVar[dict[str, Any]] = {
            "dedupe_key": {"unique": _("A message with this key exists already; it is not sent a second time.")}
        }
        widgets: ClassVar[dict[str, Any]] = {
            "phone": NotedInput(note="becomes", attrs={"type": "tel", "autocomplete": "off"}),
            "content": NotedTextarea(attrs={"rows": 6}),
            "image_url": _url_input(),
            "button_label": NotedInput(),
            "button_url": _url_input(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "content" in self.fields:  # which a message that can only be viewed does not have
            self.initial.setdefault("kind", self.instance.kind or "")
            show_limit(self)

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc] # not in the stubs
        # Django has called the model's own validation by now. The model knows no gateway, so its limit is checked here.
        if self.instance.kind:
            try:
                QueryLimit().validate(self.instance)
            except ValidationError as error:
                self.add_error(None, error)
        try:
            get_settings()
        except ImproperlyConfigured as error:
            # Refuse the form, because the message was held to the default limits, which may not be the site's.
            self.add_error(None, not_set_up(error))
        # The errors of the model and the gateway are on the fields now. Say them as a person at the form needs them.
        hold_to_kind(self, vars(self.instance))
        tell_what_to_take_out(self, [self.instance])
        refuse_past(self)


def fingerprint(form_id: str, message: OutboundViberMessage) -> str:
    """Return the digest of a form and its content: the same if a double click posts the form twice."""
    values = [str(getattr(message, name)) for name in message.CALLERS_COLUMNS]
    return hashlib.sha256(json.dumps([form_id, *values]).encode()).hexdigest()
