"""The simulator under the contract of all adapters."""

from pathlib import Path

import pytest

from app.telephony.base import CallStatus, Leg
from app.telephony.simulator import Simulator
from tests.provider_contract import ExpectedEnding, ProviderContract, Stage


class TestSimulator(ProviderContract):
    @pytest.fixture
    def stage(self, tmp_path: Path) -> Stage:
        (tmp_path / "file").touch()
        customer, agent = "919999999999", "918888888888"
        return Stage(
            provider=Simulator(tmp_path / "ledger"),
            away=lambda: Simulator(tmp_path / "file"),
            customer=customer,
            patient_customer=customer,
            agent=agent,
            endings=(
                ExpectedEnding("15005550001", agent, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
                ExpectedEnding("15005550002", agent, CallStatus.NO_ANSWER, "no_answer", Leg.CUSTOMER),
                ExpectedEnding("15005550003", agent, CallStatus.NO_ANSWER, "call_rejected", Leg.CUSTOMER),
                ExpectedEnding("15005550004", agent, CallStatus.FAILED, "unallocated_number", Leg.CUSTOMER),
                ExpectedEnding(customer, "15005550011", CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
                ExpectedEnding(customer, "15005550012", CallStatus.BUSY, "user_busy", Leg.AGENT),
            ),
        )
