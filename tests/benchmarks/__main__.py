"""Run the benchmarks, all or by name, each on a new database of its own: see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import pkgutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from . import harness


def main() -> None:
    names = [name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)]) if name != "__main__"]
    found = {name: import_module(f"{__package__}.{name}") for name in names}
    runs = {name: module.run for name, module in found.items() if hasattr(module, "run")}
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(runs)}; all unless said")
    parser.add_argument("--database", default=os.environ.get("TEST_DATABASE_URL"), help="URL; SQLite unless said")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - runs.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")

    with tempfile.TemporaryDirectory() as folder:
        harness.set_up(options.database or f"sqlite:///{folder}/db.sqlite3")
        machine: dict[str, Any] = {}
        benchmarks = []
        for name in options.names or runs:
            taken = inspect.signature(runs[name]).parameters.keys()
            arguments = {key: value for key, value in vars(options).items() if key in taken}
            with harness.scratch_database():
                machine = harness.machine()
                idle = harness.IdleCpu()
                results = list(runs[name](**arguments))
            benchmarks.append({"benchmark": name, "idle_cpu_percent": idle.percent, "results": results})
            if not options.json:
                harness.show(name, machine, idle.percent, results)
    if options.json:
        print(json.dumps({"machine": machine, "benchmarks": benchmarks}, indent=2))


if __name__ == "__main__":
    main()
