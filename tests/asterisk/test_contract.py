"""The Asterisk adapter under the contract of all adapters."""

from collections.abc import Callable

import pytest

from app.telephony.asterisk import Asterisk
from app.telephony.base import CallStatus, Leg
from tests.asterisk.lab_installation import Lab
from tests.provider_contract import ExpectedEnding, ProviderContract, Stage


class TestAsterisk(ProviderContract):
    @pytest.fixture
    async def stage(self, lab: Lab, make_provider: Callable[..., Asterisk]) -> Stage:
        agent, customer = lab.number("100"), lab.number("202")
        return Stage(
            provider=make_provider(),
            away=lambda: make_provider(url="http://127.0.0.1:9"),
            customer=customer,
            patient_customer=lab.number("200"),
            agent=agent,
            endings=(
                ExpectedEnding(lab.number("486"), agent, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
                ExpectedEnding(customer, lab.number("486"), CallStatus.BUSY, "user_busy", Leg.AGENT),
                ExpectedEnding(customer, lab.number("300"), CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
            ),
        )
