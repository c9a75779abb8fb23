"""The registries: which adapters there are, and how settings become one. A new adapter is its file and a line."""

from collections.abc import Callable
from typing import TypeVar

from app.settings import Settings, SettingsError
from app.storage import FolderStorage
from app.telephony.base import TelephonyProvider
from app.telephony.simulator import Simulator

T = TypeVar("T")

TELEPHONY: dict[str, Callable[[Settings], TelephonyProvider]] = {
    "simulator": lambda settings: Simulator(settings.data_dir / "simulator", speed=settings.simulator_speed),
}


def telephony(settings: Settings) -> TelephonyProvider:
    """The adapter that dials."""
    return _choose("RINGBACK_TELEPHONY_PROVIDER", TELEPHONY, settings.telephony_provider)(settings)


def storage(settings: Settings) -> FolderStorage:
    """Where recordings are kept."""
    return FolderStorage(settings.data_dir)


def _choose(variable: str, registry: dict[str, T], name: str) -> T:
    try:
        return registry[name]
    except KeyError:
        raise SettingsError(f"{variable}: there is no {name!r}. Choose one of: {', '.join(sorted(registry))}") from None
