"""The Stasis application. Asterisk sends its events to one client only: the one that connected last.

So each installation has its own application. A global variable of Asterisk holds the name of its holder. An
installation never connects to an application that another one holds.
"""

import re
from dataclasses import dataclass

from app.telephony.asterisk.ari import Ari
from app.telephony.base import ProviderError


@dataclass(frozen=True, slots=True)
class Application:
    """`name` is the application's name. `installation` is the id of this installation."""

    name: str
    installation: str

    async def is_registered(self, ari: Ari) -> bool:
        """Whether a client is connected to it. Raises `ProviderError`."""
        return (await ari.request("GET", f"/applications/{self.name}")).ok

    async def find_other_holder(self, ari: Ari) -> str | None:
        """Who else is connected to it, for a person. Raises `ProviderError`."""
        if not await self.is_registered(ari):
            return None
        answer = await ari.request("GET", "/asterisk/variable", variable=self._variable)
        holder = str(answer.body.get("value") or "") if answer.ok else ""
        if holder == self.installation:
            return None
        return f"the installation {holder}" if holder else "another program"

    async def hold(self, ari: Ari) -> None:
        """Become the holder, before connecting. Raises `ProviderError` while another installation is connected."""
        if (other := await self.find_other_holder(ari)) is not None:
            raise ProviderError(f"the Stasis application {self.name} is held by {other}. {FIX}")
        answer = await ari.request("POST", "/asterisk/variable", variable=self._variable, value=self.installation)
        if not answer.ok:
            raise ProviderError(f"Asterisk does not set the variable {self._variable}: {answer.description}")

    @property
    def _variable(self) -> str:
        return "RINGBACK_HOLDER_" + re.sub("[^A-Za-z0-9]", "_", self.name)


FIX = (
    "Remove the option app (RINGBACK_ASTERISK_APP), so that this installation has a name of its own; or choose a name "
    "nobody else uses"
)
