from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from ...codes import describe
from ...delivery import deliver_due_messages


class Command(BaseCommand):
    help = (
        "Sends the Viber messages that are due, and ends. Run it from cron, on as many hosts as you like. "
        "Exits with 1 when eSMS refuses the account."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, metavar="N", help="Send at most N messages.")

    def handle(self, *args: Any, limit: int | None, **options: Any) -> None:
        if limit is not None and limit < 1:
            raise CommandError(_("--limit must be at least 1."))
        summary = deliver_due_messages(limit)
        self.stdout.write(
            _("%(sent)d sent, %(failed)d failed, %(unknown)d unknown, %(requeued)d to be tried again, %(left)d left")
            % {
                "sent": summary.sent,
                "failed": summary.failed,
                "unknown": summary.unknown,
                "requeued": summary.requeued,
                "left": summary.left,
            }
        )
        if summary.account_code:
            code = describe(summary.account_code)
            raise CommandError(f"{_('Code')} {code.code}: {code.meaning} {code.remedy}")
