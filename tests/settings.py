"""Settings of the test suite. TEST_DATABASE_URL chooses another database than SQLite."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1", "shop.example.vn"]
USE_TZ = True
TIME_ZONE = "Asia/Ho_Chi_Minh"
LANGUAGE_CODE = "en"
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "esms_viber",
    "tests.shop",
    "tests.subclasses",
]
if find_spec("django_tasks_db"):
    INSTALLED_APPS.append("django_tasks_db")  # the tables for tests/engines

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database() -> Any:
    if url := os.environ.get("TEST_DATABASE_URL"):
        return environ.Env.db_url_config(url)
    # A file, as sites have it: SQLite in memory is shared between threads with locks of another kind.
    folder = Path(tempfile.gettempdir()) / f"esms-viber-tests-{os.getpid()}"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{folder}.sqlite3",
        "TEST": {"NAME": f"{folder}.test.sqlite3"},
    }


def _database_of_messages() -> Any:
    """A second one beside the first, for tests of sites that keep the messages apart."""
    first = _database()
    name = first.get("TEST", {}).get("NAME") or f"test_{first['NAME']}"
    return {**first, "TEST": {"NAME": f"{name.removesuffix('.sqlite3')}_messages"}}


DATABASES = {"default": _database(), "messages": _database_of_messages()}
DATABASE_ROUTERS = ["tests.routers.OneDatabase"]

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

ESMS_VIBER = {
    "API_KEY": "test-api-key",
    "SECRET_KEY": "test-secret-key",
    "BRANDNAME": "SHOP",
    "CALLBACK_ORIGIN": "https://shop.example.vn",
    "GATEWAY": "esms_viber.gateways.memory.MemoryGateway",
}
