"""One-liners for people who work on this: `nox -s lint`, `nox -s "tests(django='5.2')" -- tests/test_services.py`.

`.ci/run` and the GitHub workflow call the same sessions. TEST_DATABASE_URL chooses another database than SQLite.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.reuse_existing_virtualenvs = True

DJANGO = {"5.2": "django==5.2.*", "6.0": "django==6.0.*", "newest": "django"}
GROUPS = nox.project.load_toml("pyproject.toml")["dependency-groups"]


@nox.session
@nox.parametrize("django", list(DJANGO))
def tests(session: nox.Session, django: str) -> None:
    """Run the tests; what follows `--` goes to pytest."""
    packages = GROUPS["databases"] if os.environ.get("TEST_DATABASE_URL") else ()
    session.install(DJANGO[django], "-e", ".[test]", *packages)
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def everything(session: nox.Session) -> None:
    """Run the tests with browser and task engines, skipping none; CONTRIBUTING.md says what they need."""
    session.install("-e", ".[test]", *GROUPS["databases"], *GROUPS["browser"], *GROUPS["engines"])
    session.run("python", "-m", "pytest", "--no-skips", *(session.posargs or ["-n", "auto"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, migrations and translations."""
    session.install("-e", ".[test]", *GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", "django", "makemigrations", "--check", "--dry-run", "--settings=tests.settings")
    for folder in ("esms_viber", "example_project"):
        _check_translations(session, folder)


def _check_translations(session: nox.Session, folder: str) -> None:
    """Every string of the source stands in the catalogue, and is translated."""
    copy = Path(session.create_tmp()) / "translations"
    shutil.rmtree(copy, ignore_errors=True)
    ignored = shutil.ignore_patterns(".*", "*.sqlite3*", "__pycache__", "tests")
    shutil.copytree(".", copy, ignore=ignored)
    with session.chdir(copy / folder):
        session.run(
            *("python", "-m", "django", "makemessages", "-l", "vi", "--add-location", "file"),
            *("--ignore", "tests*", "-v", "0"),
            env={"DJANGO_SETTINGS_MODULE": "", "PYTHONPATH": ".."},
        )
        told = session.run(
            *("msgfmt", "--check", "--statistics", "-o", os.devnull, "locale/vi/LC_MESSAGES/django.po"),
            external=True,
            silent=True,
        )
    if "fuzzy" in str(told) or "untranslated" in str(told):
        session.error(f"{folder}: {told}")


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel, install it into an empty environment, and use it there."""
    session.install("build", "twine")
    dist = Path(session.create_tmp()).absolute() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), ".")
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    check = Path("tests/packaging/check_installed.py").absolute()
    session.run("python", "-m", "venv", "--clear", str(dist / "empty"))
    python = str(dist / "empty" / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", *map(str, dist.glob("*.whl")), external=True)
    with session.chdir(dist):
        session.run(python, str(check), external=True)
