from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...delivery import watching, worker
from ...formatting import dong, grouped, moment, tell_count
from ...models import OutboundViberMessage
from ...monitoring import QueueStatus, get_queue_status, require_setup
from ..running import running, tell_trouble, telling_misconfiguration

NEEDS_A_PERSON, BLOCKED = 1, 2


class Command(BaseCommand):
    # Checks do not run first, because a failed one would exit with 1 before the command says or does what it can.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = _(
            "Sends the Viber messages that are due, and ends; run it from cron, on as many hosts as you like. Ctrl-C "
            "or SIGTERM ends it in good order. Exits with 1 when eSMS refuses the account or a brand name, or does not "
            "answer. With --status: 0 all is well, 1 somebody has to decide about messages, 2 messages do not go out."
        )
        kinds = parser.add_mutually_exclusive_group()
        kinds.add_argument("--limit", type=int, metavar="N", help=_("Send at most N messages."))
        kinds.add_argument(
            "--watch", action="store_true", help=_("Keep running, and send messages as they become due, until stopped.")
        )
        kinds.add_argument(
            "--status",
            nargs="?",
            const="text",
            choices=["text", "json"],
            help=_("Send nothing; show how the queue stands, as text or as JSON."),
        )

    def handle(
        self, *args: Any, limit: int | None, watch: bool, status: str | None, verbosity: int, **options: Any
    ) -> None:
        if limit is not None and limit < 1:
            raise CommandError(_("--limit must be at least 1."))
        if status:
            self._show(get_queue_status(), status)
            return
        with telling_misconfiguration():
            require_setup()
            total = None
            if not watch:
                due = OutboundViberMessage.objects.due().bounded_count()
                total = due if limit is None else min(due, limit)
            elif verbosity:
                self._say(_("Sending what becomes due; Ctrl-C ends it."))
            with running(self._say, total, verbosity) as (should_stop, progress):
                if watch:
                    summary = watching.watch(should_stop=should_stop, on_progress=progress)
                else:
                    summary = worker.Worker(limit=limit, should_stop=should_stop, on_progress=progress).run()
            if verbosity:
                self._say(
                    _(
                        "%(sent)d sent, %(failed)d failed, %(unknown)d unknown, %(requeued)d to be tried again, "
                        "%(left)s left"
                    )
                    % {
                        "sent": summary.sent,
                        "failed": summary.failed,
                        "unknown": summary.unknown,
                        "requeued": summary.requeued,
                        "left": tell_count(summary.left),
                    }
                )
                # What is held is not left over, and "0 left" would read as an empty queue.
                for sentence in [] if watch else get_queue_status().remarks():
                    self._say(sentence)
            if not watch:
                tell_trouble(summary.account_code, outage=summary.outage, refused_brands=summary.refused_brands)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _show(self, status: QueueStatus, form: str) -> None:
        if form == "json":
            self._say(json.dumps(status.as_dict(), indent=2))
        else:
            oldest = stuck = ""
            if (when := status.oldest_due_at) is not None:
                local = timezone.localtime(when) if timezone.is_aware(when) else when
                # The age is in its largest unit. Django's own `timesince` is not used: it is English in Vietnamese.
                minutes = max(0, (status.at - when) // dt.timedelta(minutes=1))
                hours, days = minutes // 60, minutes // (24 * 60)
                if days:
                    age = ngettext("one day", "%(count)s days", days) % {"count": grouped(days)}
                elif hours:
                    age = ngettext("one hour", "%(count)s hours", hours) % {"count": grouped(hours)}
                else:
                    age = ngettext("one minute", "%(count)s minutes", minutes) % {"count": grouped(minutes)}
                oldest = _("the oldest since %(time)s (%(age)s)")
                oldest %= {"time": date_format(local, "SHORT_DATETIME_FORMAT"), "age": age}
            if status.stuck:
                stuck = _("%(count)s of them by a worker that is gone; the next worker takes them over")
                stuck %= {"count": tell_count(status.stuck)}
            counts = [
                (_("queued"), status.queued, ""),
                (_("due now"), status.due, oldest),
                (_("being sent"), status.sending, stuck),
                (_("unknown"), status.unknown, ""),
            ]
            width = max(len(name) for name, _count, _remark in counts)
            for name, count, remark in counts:
                self._say(f"{name:<{width}}  {tell_count(count):>7}  {remark}".rstrip())
            if status.sender_seen_at is not None:
                self._say(_("sender last seen at %(time)s") % {"time": moment(status.sender_seen_at)})
            if status.balance is not None:
                told = {"balance": dong(status.balance), "time": moment(status.balance_at)}
                self._say(_("balance at %(time)s: %(balance)s") % told)
            for sentence in status.obstacles():
                self._say(self.style.ERROR(sentence))
            for sentence in [*status.decisions().values(), *status.remarks()]:
                self._say(self.style.WARNING(sentence))
        if code := BLOCKED if status.blocked else NEEDS_A_PERSON if status.needs_a_person else 0:
            sys.exit(code)
