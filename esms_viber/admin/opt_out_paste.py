"""Many phones that have opted out, pasted at once."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from django import forms
from django.contrib.admin.helpers import AdminForm
from django.contrib.messages import constants as levels
from django.forms.models import fields_for_model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..formatting import grouped
from ..mailing.recipients import Recipient, UnreadableList, read_pasted
from ..models import ViberOptOut
from ..phones import InvalidPhone, normalize_phone
from .mailing import lines
from .notices import user_of
from .routes import render, url_of


class PasteForm(forms.Form):
    """Phones in any spelling, with one scope and one note. A valid form has its `phones`, and the `refused` entries."""

    pasted = forms.CharField(
        label=gettext_lazy("Phone numbers"),
        strip=False,  # because lines are counted
        widget=forms.Textarea(attrs={"rows": 10, "class": "vLargeTextField", "autocomplete": "off"}),
        help_text=gettext_lazy("Paste the numbers, with anything between them: line breaks, commas, spaces."),
    )

    def __init__(self, model_admin: Any, request: HttpRequest, *args: Any) -> None:
        super().__init__(*args)
        made_by_admin = partial(model_admin.formfield_for_dbfield, request=request)
        self.fields |= fields_for_model(ViberOptOut, fields=("scope", "note"), formfield_callback=made_by_admin)
        self.phones: set[str] = set()
        self.refused: list[tuple[Recipient, str]] = []

    def clean_pasted(self) -> str:
        text: str = self.cleaned_data["pasted"]
        try:
            people = read_pasted(text).people
        except UnreadableList as error:
            raise forms.ValidationError(str(error)) from None
        for person in people:
            try:
                self.phones.add(normalize_phone(person.phone))
            except InvalidPhone as error:
                self.refused.append((person, str(error)))
        return text


def paste(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Store what can be read, and show the page again with the text where something cannot."""
    form = PasteForm(model_admin, request, request.POST if request.method == "POST" else None)
    if form.is_valid():
        scope, note, count = form.cleaned_data["scope"], form.cleaned_data["note"], len(form.phones)
        if count:
            new = ViberOptOut.objects.opt_out_all(form.phones, scope=scope, note=note, user=user_of(request))
            model_admin.message_user(request, _stored(new, count - new), levels.SUCCESS)
        if not form.refused:
            may_look = model_admin.has_view_or_change_permission(request)
            return HttpResponseRedirect(url_of(model_admin, "changelist") if may_look else request.path)
    fieldsets: Any = [(None, {"fields": ("pasted", "scope", "note")})]
    return render(
        model_admin,
        request,
        "opt_outs_pasted",
        title=_("Paste phones that have opted out"),
        form=form,
        adminform=AdminForm(cast(Any, form), fieldsets, {}, model_admin=model_admin),
        media=model_admin.media + form.media,
        refused=lines(form.refused),
    )


def _stored(new: int, known: int) -> str:
    sentences = []
    if new:
        sentence = ngettext("One phone was added.", "%(count)s phones were added.", new)
        sentences.append(sentence % {"count": grouped(new)})
    if known:
        sentence = ngettext("One phone had opted out already.", "%(count)s phones had opted out already.", known)
        sentences.append(sentence % {"count": grouped(known)})
    return " ".join(sentences)
