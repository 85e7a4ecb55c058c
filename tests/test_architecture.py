"""The rooms of the package: imports point one way, and a module is no longer than its subject."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import esms_viber

PACKAGE = Path(esms_viber.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in PACKAGE.rglob("*.py")
    if "migrations" not in path.parts
}

FLOORS = (
    "conf codes exceptions signals phones formatting database tokens",
    "gateways models",
    "lifecycle",
    "monitoring statistics account",
    "delivery",
    "reports dispatch",
    "creation",
    "resend privacy",
    "services",
    "mailing signal_handlers views",
    "admin management checks testing urls",
    "apps pytest_plugin",
)
"""A room imports from its own floor and from those above it in this list."""

LONGEST = 620


def floor(module: str) -> int:
    room = module.partition(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms.split())


def imports_of(module: str) -> set[str]:
    """Everything that it imports from the package: at its top, inside functions, and for type checkers."""
    path = MODULES[module]
    package = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.ImportFrom) and node.level):
            continue
        base = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
        for alias in node.names:
            names = (".".join([*base, alias.name]), ".".join(base))
            found.add(next(name for name in names if name in MODULES))
    return found - {module, ""}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {""}))
def test_imports_point_to_the_floors_above(module: str) -> None:
    assert [other for other in imports_of(module) if floor(other) > floor(module)] == []


def test_no_circle_of_imports() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " > ".join([*path, module])
        if module not in done:
            for other in imports_of(module):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_is_no_longer_than_its_subject(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("module", sorted(name for name, path in MODULES.items() if path.name == "__init__.py"))
def test_the_package_file_of_a_room_says_what_lives_there(module: str) -> None:
    """And nothing else, but for the names that Django, or a site, imports from it."""
    tree = ast.parse(MODULES[module].read_text())
    assert ast.get_docstring(tree)
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body)


def test_loading_the_app_loads_no_http_library_and_no_phone_metadata() -> None:
    """The admin is autodiscovered, so this holds for what it imports as well."""
    code = "import django, sys; django.setup(); print(*sys.modules)"
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"esms_viber.admin", "esms_viber.services"} <= loaded
    assert loaded.isdisjoint({"requests", "urllib3", "phonenumbers", "esms_viber.mailing.recipients"})
