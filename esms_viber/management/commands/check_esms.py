from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from ...account import BalanceUnavailable, BrandnamesUnavailable, ask, ask_brandnames
from ...conf import get_settings
from ...formatting import dong


class Command(BaseCommand):
    # Checks do not run first, because a failed one would exit with 1 before the command says or does what it can.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = _(
            "Asks eSMS for the account's balance and for its brand names: are the keys right, and is the brand name "
            "active for Viber? Sends no message. Exits with 1 when something is wrong."
        )
        least = _("Exit with 1 when the balance is under N VND.")
        parser.add_argument("--minimum", type=int, metavar="N", help=least)

    def handle(self, *args: Any, minimum: int | None = None, **options: Any) -> None:
        problems = []
        try:
            balance = ask()
            self.stdout.write(_("eSMS accepts the keys. Balance: %(balance)s") % {"balance": dong(balance.amount)})
            if minimum is not None and balance.amount < minimum:
                sentence = _("The balance is under %(minimum)s. Top up the eSMS account.")
                problems.append(sentence % {"minimum": dong(Decimal(minimum))})
            problems += self._check_brandname()
        except (BalanceUnavailable, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        if problems:
            raise CommandError("\n".join(problems))

    def _check_brandname(self) -> list[str]:
        try:
            names = ask_brandnames()
        except BrandnamesUnavailable as error:
            # The brand name may be in order all the same.
            self.stdout.write(self.style.WARNING(str(error)))
            return []
        listed = ", ".join(names) or _("none")
        self.stdout.write(_("Brand names active for Viber: %(names)s") % {"names": listed})
        own = get_settings().BRANDNAME
        if own in names:
            return []
        told = {"name": own, "names": listed}
        if alike := [name for name in names if name.casefold() == own.strip().casefold()]:
            sentence = _('ESMS_VIBER["BRANDNAME"] is “%(name)s”, but it is registered as “%(right)s”: write it so.')
            return [sentence % {**told, "right": alike[0]}]
        sentence = _(
            'ESMS_VIBER["BRANDNAME"] is “%(name)s”, which is not active for Viber. Use one of those that are '
            "(%(names)s), or ask eSMS to activate it."
        )
        return [sentence % told]
