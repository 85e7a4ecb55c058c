from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ...amounts import dong
from ...codes import describe
from ...gateways import get_gateway


class Command(BaseCommand):
    help = "Asks eSMS for the account's balance: are the keys right? Sends no message."

    def handle(self, *args: Any, **options: Any) -> None:
        result = get_gateway().fetch_balance()
        if result.balance is not None:
            self.stdout.write(_("eSMS accepts the keys. Balance: %(balance)s") % {"balance": dong(result.balance)})
        elif result.code:
            code = describe(result.code)
            raise CommandError(f"{_('Code')} {code.code}: {code.meaning} {code.remedy}")
        else:
            raise CommandError(result.text)
