"""Which tests share a process of pytest-xdist, and in which order they start.

Tests of one file stay together, because many share a fixture that takes long. Some files share one, too. The longest
start first, so that no process has a long file left at the end.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

_GROUPS = {
    # These use the one running `instance`.
    "tests/acceptance/test_calls.py": "instance",
    "tests/acceptance/test_cli.py": "instance",
    "tests/acceptance/test_clients.py": "instance",
    "tests/acceptance/test_fuzz.py": "instance",
    "tests/acceptance/test_monitoring.py": "instance",
    "tests/acceptance/test_readme.py": "instance",
    "tests/acceptance/test_reference.py": "instance",
    "tests/acceptance/test_up.py": "instance",
    # These use the one `console`.
    "tests/acceptance/test_console.py": "console",
    "tests/acceptance/test_console_pages.py": "console",
    # These share an Asterisk and an installation.
    "tests/asterisk/test_adapter.py": "asterisk",
    "tests/asterisk/test_contract.py": "asterisk",
    "tests/asterisk/test_crashes.py": "asterisk",
    "tests/asterisk/test_endings.py": "asterisk",
}

_LONGEST_FIRST = [
    "tests/asterisk/test_outages.py",
    "tests/asterisk/test_calls.py",
    "tests/asterisk/",
    "tests/acceptance/test_chaos.py",
    "tests/acceptance/test_failover.py",
    "tests/acceptance/test_upgrade.py",
    "tests/acceptance/test_pooler.py",
    "tests/acceptance/test_calls.py",
    "tests/acceptance/test_cli.py",
    "tests/acceptance/test_clients.py",
    "tests/acceptance/test_console.py",
    "tests/acceptance/test_console_pages.py",
    "tests/acceptance/test_fuzz.py",
    "tests/acceptance/test_monitoring.py",
    "tests/acceptance/test_readme.py",
    "tests/acceptance/test_reference.py",
    "tests/acceptance/test_up.py",
    "tests/acceptance/test_wheel.py",
    "tests/integration/test_speech.py",
    "tests/acceptance/test_killed_run.py",
    "tests/integration/test_backups.py",
    "tests/integration/test_cli.py",
    "tests/integration/test_worker_process.py",
    "tests/integration/test_outages.py",
    "tests/integration/test_embedded.py",
    "tests/integration/test_deliveries.py",
    "tests/integration/",
]


def sort(items: list[pytest.Item]) -> None:
    """Longest first. The order within a file stays."""

    def place(item: pytest.Item) -> int:
        places = (place for place, path in enumerate(_LONGEST_FIRST) if item.nodeid.startswith(path))
        return next(places, len(_LONGEST_FIRST))

    items.sort(key=place)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a file, or files that share something, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _GROUPS.get(file, file)
