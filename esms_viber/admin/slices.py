"""Work on more messages than one request can take: a slice at a time, newest first, with a bar.

The selection is never a list of keys: it is the filters of the list, and a number below which messages are still to be
done. Both are posted back to the list, by a script or by the button *Go on*.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Self

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.messages import constants as levels
from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..database import CHUNK
from ..formatting import grouped
from ..models import OutboundViberMessage
from .base import MessageAdminBase
from .notices import FROM_CAMPAIGN, Notice, back, back_url, tell
from .routes import render

WORK = "viber_work"
"""The field in which the pages post the state of the work."""

PART = "viber_part"
"""The field by which the script asks for an answer in JSON, after a short time."""

SECONDS_OF_PART, SECONDS_OF_REQUEST = 2, 15
"""How long one request goes on; web servers give up after thirty seconds."""

_WIDTH = 1000
_MOST_REASONS = 10
_SALT = "esms_viber.admin.slices"


@dataclass(slots=True)
class Work:
    """The state of the work, carried from request to request."""

    top: int
    """The highest primary key that is meant."""
    bottom: int
    """The lowest, as far as the bar needs to know."""
    below: int
    """What has this primary key or a higher one is done, or came later.

    It is the only bound in a query, because SQLite would look for the first of two, and walk on to the other."""
    mark: str = ""
    """The `Mark` of the question, for sending."""
    spare: bool = False
    """Is what has arrived left out?"""
    finished: bool = False
    done: Counter[str] = field(default_factory=Counter)
    """Messages by what was done with them."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Messages that were left out, by the reason."""

    @classmethod
    def begin(
        cls, request: HttpRequest, queryset: QuerySet[OutboundViberMessage], *, last: int, mark: str = ""
    ) -> Self:
        """Start with the newest message that is meant, where `last` is the newest that has been shown."""
        rows = queryset.using(OutboundViberMessage.objects.write_alias()).filter(pk__lte=last)
        # Along the index of the filter, as `MessageList` sorts it.
        column = "campaign" if request.GET.get("campaign") else "created_at" if _is_by_time(request) else "pk"
        bottom = rows.order_by(column, "pk").values_list("pk", flat=True).first()
        top = rows.order_by(f"-{column}", "-pk").values_list("pk", flat=True).first()
        if column == "created_at":
            top = last  # because the latest need not have the highest number
        return cls(top=top or 0, bottom=min(bottom or 0, top or 0), below=(top or 0) + 1, mark=mark)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        try:
            found = signing.loads(text, salt=_SALT)
        except signing.BadSignature:
            return None
        return cls(**{**found, "done": Counter(found["done"]), "skipped": Counter(found["skipped"])})

    def __str__(self) -> str:
        return signing.dumps({each.name: getattr(self, each.name) for each in fields(self)}, salt=_SALT, compress=True)

    @property
    def width(self) -> int:
        """How far the bar has come, of `_WIDTH`."""
        if self.finished:
            return _WIDTH
        return min(_WIDTH, max(0, (self.top + 1 - self.below) * _WIDTH // (self.top + 1 - self.bottom)))

    def leave_out(self, reasons: Counter[str]) -> None:
        self.skipped.update(reasons)
        if len(self.skipped) > _MOST_REASONS:
            told = self.skipped.most_common(_MOST_REASONS - 1)
            others = self.skipped.total() - sum(count for _why, count in told)
            self.skipped = Counter({**dict(told), _("There are several reasons."): others})

    def left_out(self) -> list[Notice]:
        """Tell how many were selected and left out, with the reasons."""
        told = []
        for why, count in self.skipped.most_common():
            head = ngettext("One message was left out.", "%(count)s messages were left out.", count)
            told.append(Notice(levels.WARNING, f"{head % {'count': grouped(count)}} {why}"))
        return told


def _is_by_time(request: HttpRequest) -> bool:
    return any(name.startswith("created_at__") for name in request.GET)


def go_on(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    queryset: QuerySet[OutboundViberMessage],
    work: Work,
    *,
    title: str,
    step: Callable[[list[int]], object],
    told: Callable[[], Iterable[Notice]],
) -> HttpResponse:
    """Do some of the work, and answer the script, or with a page to go on from, or, where nothing is left, with `told`.

    `step` is given primary keys, newest first, does what is to be done in a transaction of its own and notes it in the
    `work`. It may be given some twice, where an answer was lost or a button was pressed twice.
    """
    is_part = PART in request.POST
    until = time.monotonic() + (SECONDS_OF_PART if is_part else SECONDS_OF_REQUEST)
    rows = queryset.using(OutboundViberMessage.objects.write_alias()).order_by("-pk")
    if name := request.GET.get("campaign"):
        # The filter is a range of one name, in which no index could go to a number at once.
        rows = rows.filter(campaign=name)
    is_first = True
    while not work.finished and (is_first or time.monotonic() < until):
        is_first = False
        chunk = list(rows.filter(pk__lt=work.below).values_list("pk", flat=True)[:CHUNK])
        if chunk:
            step(chunk)
            work.below = chunk[-1]
        work.finished = len(chunk) < CHUNK
    if is_part:
        sentences = " ".join(str(notice.text) for notice in told())
        answer = {"work": str(work), "width": work.width, "said": sentences, "finished": work.finished}
        return JsonResponse(answer)
    if not work.finished:
        return render(
            model_admin, request, "slices", title=title, said=[str(notice.text) for notice in told()],
            **context(model_admin, request, work),
        )  # fmt: skip
    tell(model_admin, request, [], told())
    return back(model_admin, request, [])


def context(model_admin: MessageAdminBase, request: HttpRequest, work: Work) -> dict[str, Any]:
    """Return what the form needs that posts the work back to the list."""
    posted = {
        "action": request.POST["action"],
        ACTION_CHECKBOX_NAME: "0",  # because Django refuses an action on nothing
        "select_across": "1",
        WORK: str(work),
    }
    if FROM_CAMPAIGN in request.POST:
        posted[FROM_CAMPAIGN] = "1"
    return {
        "work_fields": posted,
        "work_name": WORK,
        "work_part": PART,
        "work_width": work.width,
        "work_most": _WIDTH,
        "back": back_url(model_admin, request, []),
    }
