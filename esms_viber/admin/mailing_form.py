"""The form of *Send to many*: one text, and a list of people."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any
from urllib.parse import quote

from django import forms
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.forms.models import fields_for_model
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import creation
from ..conf import get_dispatcher
from ..mailing.mailing import Mailing, Review, review
from ..mailing.recipients import (
    MOST_BYTES,
    MOST_RECIPIENTS,
    Recipient,
    Recipients,
    UnreadableList,
    read_csv,
    read_pasted,
)
from ..models import OutboundViberMessage, Purpose
from ..models.choices import KIND_FIELDS
from ..models.placeholders import visible
from ..models.validators import normalize_text
from ..monitoring import require_setup
from .base import MessageAdminBase
from .form_fields import KindField, hold_to_kind, refuse_past, room, show_limit, tell_what_to_take_out
from .forms import MessageForm
from .notices import not_set_up

logger = logging.getLogger("esms_viber")

_MESSAGE_FIELDS = ("campaign", *KIND_FIELDS, "purpose", "brandname", "send_at", "expires_at", "sandbox")
_ANY_PHONE = "0901888484"
_ROOM_FOR_THE_REST = 200_000
"""Bytes that the other fields of the form may take beside the list."""


class MailingForm(forms.Form):
    """The message and the list. A valid form has a `mailing` and, unless `typing`, `recipients` and a `review`."""

    kind = KindField()
    phones = forms.CharField(
        label=gettext_lazy("Phone numbers"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "vLargeTextField", "autocomplete": "off"}),
        help_text=gettext_lazy("Paste the numbers, with anything between them: line breaks, commas, spaces."),
    )
    file = forms.FileField(
        label=gettext_lazy("Or a CSV file"),
        required=False,
        allow_empty_file=True,  # because `read_csv()` refuses it in our words
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,text/csv,text/plain"}),
        help_text=gettext_lazy(
            "Its first line names the columns, one of them “phone”. Write {first name} in the text for what the "
            "column “first name” holds. In a spreadsheet choose “Save as”, “CSV UTF-8”."
        ),
    )
    rows = forms.CharField(required=False, widget=forms.HiddenInput())
    """The list as it was read before, so that nobody has to choose the file again."""
    phone_column = forms.CharField(required=False)
    """The column whose phones are used, where several hold phones. The template shows the choice."""

    mailing: Mailing
    recipients: Recipients
    review: Review

    def __init__(
        self, model_admin: MessageAdminBase, request: HttpRequest, *args: Any, typing: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._typing = typing
        made_by_admin = partial(model_admin.formfield_for_dbfield, request=request)
        self.fields |= fields_for_model(
            OutboundViberMessage,
            fields=_MESSAGE_FIELDS,
            widgets=MessageForm.Meta.widgets,
            formfield_callback=made_by_admin,
        )
        self.fields["campaign"].required = True
        self.fields["campaign"].help_text = _(
            "A name of your own, e.g. tet-2027. Each phone gets one message of a campaign, however often you send."
        )
        purpose = self.fields["purpose"]
        purpose.required, purpose.initial = False, Purpose.PROMOTIONAL
        purpose.help_text = _(
            "Transactional is what each of these people waits for, such as news of an order. It goes out first, and "
            "also to people who have opted out of promotional messages only."
        )
        show_limit(self)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        texts = {name: normalize_text(data.get(name)) for name in ("campaign", *KIND_FIELDS, "brandname")}
        # Strip them as the model does, because only the text itself keeps spaces at its ends.
        texts = {name: text if name == "content" else text.strip() for name, text in texts.items()}
        self.mailing = Mailing(
            **texts,
            purpose=data.get("purpose") or Purpose.PROMOTIONAL,
            sandbox=bool(data.get("sandbox")),
            send_at=data.get("send_at"),
            expires_at=data.get("expires_at"),
        )
        refuse_past(self)
        hold_to_kind(self, {name: getattr(self.mailing, name) for name in KIND_FIELDS})
        if self._typing:
            self._check_text()
        else:
            self._check_list()
        tell_what_to_take_out(self, self.longest)
        try:
            require_setup()
            get_dispatcher()
        except ImproperlyConfigured as error:
            logger.error("the connection to eSMS is not set up: %s", error)  # noqa: TRY400
            self.add_error(None, not_set_up(error))
        return data

    # -- while typing --------------------------------------------------------------------------------------------------

    def _check_text(self) -> None:
        """Validate the longest messages, and show the errors of the first that is refused.

        Errors of a link with braces are left out, because it becomes a link only with the values of a line.
        """
        open_links = {name for name in ("image_url", "button_url") if "{" in getattr(self.mailing, name)}
        for message in self.longest:
            try:
                creation.validate(message)
            except ValidationError as error:
                self._add_errors(error, leave=open_links)
                break

    def _add_errors(self, error: ValidationError, leave: set[str]) -> None:
        """Add a message's errors, by the names of its fields, to the fields of this form."""
        for name, errors in error.error_dict.items():
            if name in self.fields and name not in leave:
                self.add_error(name, errors)

    @property
    def first(self) -> OutboundViberMessage:
        """Return the first message that would be sent; that to the first line where none is ready."""
        if ready := getattr(self, "review", Review()).ready:
            return ready[0][1]
        lines = getattr(self, "recipients", None)
        values = dict(zip(lines.columns, lines.people[0].values, strict=True)) if lines else {}
        return self.mailing.message(_ANY_PHONE, values)

    # -- the length -------------------------------------------------------------------------------------------------

    @property
    def longest(self) -> list[OutboundViberMessage]:
        """Return messages, one of them the longest: with the longest values of the list or, without one, the braces."""
        mailing = getattr(self, "mailing", Mailing(campaign=""))
        try:
            lines = self._longest_lines or Recipients.from_json(self.data.get("longest", ""))
        except UnreadableList:
            return [mailing.message(_ANY_PHONE, {})]
        values = [dict(zip(lines.columns, person.values, strict=True)) for person in lines.people]
        return [mailing.message(_ANY_PHONE, each) for each in values]

    @cached_property
    def _longest_lines(self) -> Recipients | None:
        """Find for each column the line with the longest value."""
        known = getattr(self, "recipients", None)
        if known is None or not known.columns:
            return None
        longest: dict[int, Recipient] = {}
        for person in known.people:
            for column, value in enumerate(person.values):
                if column not in longest or len(quote(value)) > len(quote(longest[column].values[column])):
                    longest[column] = person
        return Recipients(known.columns, tuple(dict.fromkeys(longest.values())))

    def show_room(self) -> None:
        """Show below the text how much room is left. The script posts the longest lines back while somebody types."""
        text = self.fields["content"].widget
        text.room = room(self.longest)
        if self._longest_lines:
            text.attrs["data-longest"] = self._longest_lines.as_json()

    # -- the list ------------------------------------------------------------------------------------------------------

    def _check_list(self) -> None:
        try:
            self.recipients = self._read().with_phones_of(self.cleaned_data.get("phone_column", ""))
        except UnreadableList as error:
            self.add_error("file" if self.cleaned_data.get("file") else "phones", str(error))
            return
        columns = self.recipients.columns
        for name in self.mailing.unknown_columns(columns):
            field = next(f for f in KIND_FIELDS if f"{{{name}}}" in getattr(self.mailing, f))
            if columns:
                sentence = _("No column is called “%(name)s”. The columns are: %(columns)s.")
            else:
                sentence = _(
                    "The phones come without a column “%(name)s”. Give a CSV file, or take it out of the text."
                )
            self.add_error(field, sentence % {"name": visible(name), "columns": ", ".join(columns)})
        if not self.errors:
            self.review = review(self.mailing, self.recipients)

    def blame_text(self) -> bool:
        """If every line was refused, add the first error to the text, unless it is about the phone or an empty column.

        Return whether the form has errors now.
        """
        refused = self.review.refused
        if len(refused) == len(self.recipients.people):
            _person, error = refused[0]
            if hasattr(error, "error_dict"):  # because the error about an empty column names no field
                self._add_errors(error, leave={"phone"})
                tell_what_to_take_out(self, self.longest)
        return bool(self.errors)

    def keep_list(self) -> Recipients | None:
        """Return a list with columns, for a hidden field. Put one of phones alone into `phones`, to be edited there."""
        kept = getattr(self, "recipients", None)
        if kept is None or kept.columns:
            return kept
        if not self.data.get("phones"):
            self.data = {**dict(self.data.items()), "phones": "\n".join(person.phone for person in kept.people)}
        return None

    def _read(self) -> Recipients:
        data = self.cleaned_data
        if data.get("file") and data.get("phones", "").strip():
            raise UnreadableList(_("There are phones and a file. Remove one of them; you can send it afterwards."))
        if file := data.get("file"):
            found = read_csv(file.read(MOST_BYTES + 1))
        elif data.get("phones", "").strip():
            found = read_pasted(data["phones"])
        elif data.get("rows"):
            return Recipients.from_json(data["rows"])
        else:
            raise UnreadableList(
                _("Paste phones, or choose a file: up to %(most)d at once.") % {"most": MOST_RECIPIENTS}
            )
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if most is not None and len(found.as_json().encode()) > most - _ROOM_FOR_THE_REST:
            raise UnreadableList(_("The list is too large for one go. Leave out columns, or divide it."))
        return found
