from __future__ import annotations

from typing import Any

from django.db import models


class KeyField(models.CharField):  # type: ignore[type-arg] # not subscriptable when the code runs
    """A key that is the same only where every character is: MySQL's usual collations take `don-1` for `đơn-1`."""

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
        return parameters
