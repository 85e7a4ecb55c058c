from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ...amounts import dong
from ...codes import describe
from ...gateways import get_gateway
from ...gateways.console import ConsoleGateway
from ...gateways.memory import MemoryGateway


class Command(BaseCommand):
    help = "Asks eSMS for the account's balance: are the keys right? Sends no message."

    def handle(self, *args: Any, **options: Any) -> None:
        gateway = get_gateway()
        if isinstance(gateway, ConsoleGateway | MemoryGateway):
            raise CommandError(
                _('ESMS_VIBER["GATEWAY"] is %(name)s, so there is nobody to ask.') % {"name": type(gateway).__name__}
            )
        result = gateway.fetch_balance()
        if result.balance is not None:
            self.stdout.write(_("eSMS accepts the keys. Balance: %(balance)s") % {"balance": dong(result.balance)})
        elif result.code == "100":
            self.stdout.write(_("eSMS accepts the keys."))
        elif result.code:
            code = describe(result.code)
            raise CommandError(f"{_('Code')} {code.code}: {code.meaning} {code.remedy}")
        else:
            raise CommandError(result.text)
