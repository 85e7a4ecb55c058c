from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from ...account import BalanceUnavailable, ask
from ...formatting import dong


class Command(BaseCommand):
    # Checks do not run first, because a failed one would exit with 1 before the command says or does what it can.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = _("Asks eSMS for the account's balance: are the keys right? Sends no message.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            balance = ask()
        except BalanceUnavailable as error:
            raise CommandError(str(error)) from None
        self.stdout.write(_("eSMS accepts the keys. Balance: %(balance)s") % {"balance": dong(balance.amount)})
