from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from ...conf import get_settings
from ...formatting import grouped
from ...models.validators import normalize_text
from ...privacy import messages_of, prune
from ..running import running, telling_misconfiguration

_LONGEST = 36_525


class Command(BaseCommand):
    # Checks do not run first, because a failed one would exit with 1 before the command says or does what it can.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = _(
            "Redacts or deletes Viber messages that are old enough: by REDACT_AFTER_DAYS and DELETE_AFTER_DAYS, or as "
            "the options say. Redacting empties text, links, phone and callback data, and keeps status, price and "
            "times, so that all figures stay. Messages that wait or are being sent are left, drafts that are younger "
            "than seven days, and what eSMS took within seven days and has told no result of. Run it from cron, e.g. "
            "every night. Ctrl-C or SIGTERM ends it in good order."
        )
        parser.add_argument(
            "--redact-after",
            type=int,
            metavar="DAYS",
            help=_("Redact messages to which nothing has happened for so many days."),
        )
        parser.add_argument(
            "--delete-after",
            type=int,
            metavar="DAYS",
            help=_("Delete messages to which nothing has happened for so many days."),
        )
        parser.add_argument("--campaign", metavar="NAME", help=_("Only messages of this campaign."))
        parser.add_argument("--dry-run", action="store_true", help=_("Only count what would be done."))

    def handle(
        self,
        *args: Any,
        redact_after: int | None,
        delete_after: int | None,
        campaign: str | None,
        dry_run: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        for name, days in (("--redact-after", redact_after), ("--delete-after", delete_after)):
            if days is not None and not 0 <= days <= _LONGEST:
                raise CommandError(_("%(option)s must be a number of days.") % {"option": name})
        if redact_after is None and delete_after is None:
            with telling_misconfiguration():
                conf = get_settings()
            redact_after, delete_after = conf.REDACT_AFTER_DAYS, conf.DELETE_AFTER_DAYS
        if redact_after is None and delete_after is None:
            raise CommandError(
                _(
                    "Nothing says how long messages are kept. Set REDACT_AFTER_DAYS or DELETE_AFTER_DAYS in "
                    "ESMS_VIBER, or give --redact-after or --delete-after."
                )
            )
        name = normalize_text(campaign).strip()
        if campaign is not None and not name:
            # As from a variable that is not set: that was not to be all messages.
            raise CommandError(_("--campaign needs a name. Leave it out for the messages of all campaigns."))
        ending = _("Stopping after this slice. Press Ctrl-C again to end at once.")
        total = messages_of(name).count()
        with running(self._say, total, verbosity, ending=ending, is_exact=True) as (should_stop, progress):
            done = prune(
                redact_after=None if redact_after is None else dt.timedelta(days=redact_after),
                delete_after=None if delete_after is None else dt.timedelta(days=delete_after),
                campaign=name,
                dry_run=dry_run,
                should_stop=should_stop,
                on_progress=progress,
            )
        if verbosity:
            sentence = _("%(redacted)s redacted, %(deleted)s deleted")
            if dry_run:
                sentence = _("%(redacted)s would be redacted, %(deleted)s would be deleted")
            self._say(sentence % {"redacted": grouped(done.redacted), "deleted": grouped(done.deleted)})

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
