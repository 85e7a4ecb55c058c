from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...formatting import tell_count
from ...models import OutboundViberMessage
from ...reports.polling import refresh_due_messages
from ..running import running, tell_trouble, telling_misconfiguration

MOST = 1000


class Command(BaseCommand):
    # Checks do not run first, because a failed one would exit with 1 before the command says or does what it can.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = _(
            "Asks eSMS about messages that it took, or may have taken, and has not reported on: five minutes after "
            "they were sent, and at growing intervals for seven days. Applies reports that could not be applied when "
            "they came. Run it from cron, e.g. every five minutes. Exits with 1 when eSMS refuses the account or does "
            "not answer."
        )
        most = _("Ask about at most N messages (%(most)d).") % {"most": MOST}
        parser.add_argument("--limit", type=int, default=MOST, metavar="N", help=most)

    def handle(self, *args: Any, limit: int, verbosity: int, **options: Any) -> None:
        if limit < 1:
            raise CommandError(_("--limit must be at least 1."))
        total = min(limit, OutboundViberMessage.objects.due_for_query().bounded_count())
        with telling_misconfiguration(), running(self.stdout.write, total, verbosity) as (should_stop, progress):
            summary = refresh_due_messages(limit, should_stop=should_stop, on_progress=progress)
        if verbosity:
            if summary.applied:
                sentence = ngettext(
                    "One stored report was applied.", "%(count)d stored reports were applied.", summary.applied
                )
                self.stdout.write(sentence % {"count": summary.applied})
            self.stdout.write(
                _("%(delivered)d delivered, %(undelivered)d not delivered, %(undecided)d undecided yet, %(left)s left")
                % {
                    "delivered": summary.delivered,
                    "undelivered": summary.undelivered,
                    "undecided": summary.undecided,
                    "left": tell_count(summary.left),
                }
            )
        tell_trouble(summary.account_code, outage=summary.outage)
