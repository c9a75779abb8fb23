"""The adapter alone: what is on the wire, what holds without any process of ours, and what its check finds missing."""

import asyncio
import secrets
from dataclasses import replace

import pytest

from app.numbers import Extension, NumberFormat, PhoneNumber
from app.telephony.asterisk import Asterisk
from app.telephony.asterisk.ari import Ari
from app.telephony.base import Accepted, CallOrder, CallRef, CallStatus, Finding, Leg, ProviderError, Rejected
from lab.asterisk import PASSWORD as ARI_PASSWORD
from lab.asterisk import USERNAME
from tests.asterisk.lab_installation import Lab, MakeProvider, eventually
from tests.provider_contract import Following, new_order


@pytest.mark.parametrize(
    ("number_format", "dialed"),
    [(NumberFormat.DIGITS, "{}"), (NumberFormat.E164, "+{}"), (NumberFormat.NATIONAL, "0{}")],
)
async def test_numbers_reach_the_trunk_as_it_wants_them(
    lab: Lab, make_provider: MakeProvider, number_format: NumberFormat, dialed: str
) -> None:
    number = lab.number("486")
    spelled = dialed.format(number.removeprefix("91") if number_format is NumberFormat.NATIONAL else number)
    provider = make_provider(number_format=number_format)
    async with Following(provider, new_order(lab.number("200"), number)).placed() as call:
        await call.until_ended()
    log = (lab.phones.folder / "invites.log").read_text()
    assert f"<sip:{spelled}@" in log


async def test_the_number_shown_where_the_trunk_wants_the_account_in_from(
    lab: Lab, make_provider: MakeProvider
) -> None:
    order = CallOrder(
        "call_0000000000000pai",
        PhoneNumber(lab.number("201")),
        PhoneNumber(lab.number("100")),
        PhoneNumber("911204567890"),
    )
    async with Following(make_provider(dial="PJSIP/{number}@trunk-pai"), order).placed() as call:
        await call.until_ended()
    called = (order.customer_number.digits, order.agent_number.digits)
    invites = [invite for invite in lab.phones.invites() if invite.number in called]
    assert len(invites) == 2
    for invite in invites:
        assert "<sip:account@" in invite.shown_in_from
        assert "<sip:+911204567890@" in invite.shown_in_pai


async def test_without_a_number_to_show_the_trunk_decides(lab: Lab, make_provider: MakeProvider) -> None:
    order = new_order(lab.number("201"), lab.number("486"))
    async with Following(make_provider(dial="PJSIP/{number}@trunk-pai"), order).placed() as call:
        await call.until_ended()
    (invite,) = [invite for invite in lab.phones.invites() if invite.number == order.agent_number.digits]
    assert "<sip:account@" in invite.shown_in_from


async def test_a_trunk_that_is_not_there(lab: Lab, make_provider: MakeProvider) -> None:
    provider = make_provider(dial="PJSIP/{number}@trunk-dead")
    async with Following(provider, new_order(lab.number("200"), lab.number("100"))).placed() as call:
        ended = await call.until_ended()
    assert (ended.status, ended.hangup_cause, ended.leg) == (CallStatus.FAILED, "no_user_response", Leg.AGENT)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dial": "PJSIP/{number}@no-such-trunk"}, "ringback providers check"),
        ({"password": "wrong"}, "(RINGBACK_ASTERISK_USERNAME, _PASSWORD)"),
    ],
)
async def test_a_wrong_setting_is_a_clear_refusal(
    lab: Lab, make_provider: MakeProvider, changed: dict[str, str], reason: str
) -> None:
    result = await make_provider(**changed).place(new_order(lab.number("200"), lab.number("100")))
    assert isinstance(result, Rejected)
    assert reason in result.reason
    assert result.retry_after is None, "it would not help"


async def test_nobody_is_dialed_while_nobody_listens(lab: Lab, make_provider: MakeProvider) -> None:
    number = lab.number("100")
    result = await make_provider().place(new_order(lab.number("200"), number))
    assert isinstance(result, Rejected)
    assert result.retry_after is not None, "somebody may listen in a moment"
    assert lab.invites(number) == 0


async def test_an_agent_who_is_gone_before_the_customer_is_dialed(lab: Lab, make_provider: MakeProvider) -> None:
    provider = make_provider()
    order = new_order(lab.number("200"), lab.number("100"))
    async with provider.listen():
        result = await provider.connect(order)
    assert isinstance(result, Rejected)
    assert lab.invites(order.customer_number.digits) == 0


async def test_the_longest_talk_is_enforced_without_our_processes(lab: Lab, make_provider: MakeProvider) -> None:
    agent, customer = lab.number("100"), lab.number("200")
    order = CallOrder(
        "call_00000000000000cap", PhoneNumber(customer), PhoneNumber(agent), customer_ring_seconds=1, max_call_seconds=1
    )
    provider = make_provider()
    async with Following(provider, order).placed() as call:
        await call.until(lambda event: event.status == CallStatus.IN_PROGRESS)
        call.hang_up_in_the_end = False
    await provider.aclose()

    async def is_over() -> bool:
        return not [what for what in await lab.left() if what.startswith(f"channel {order.call_id}")]

    assert not await is_over()
    await eventually(is_over)
    other = make_provider()
    await other.hangup(CallRef(order.call_id, None))
    await other.discard_recording(CallRef(order.call_id, None))


async def test_a_call_that_reached_the_cap_says_so(lab: Lab, make_provider: MakeProvider) -> None:
    order = CallOrder(
        "call_0000000000000cap2", PhoneNumber(lab.number("200")), PhoneNumber(lab.number("100")), None, 2, 1, 1
    )
    async with Following(make_provider(), order).placed() as call:
        ended = await call.until_ended()
        assert (ended.status, ended.hangup_cause, ended.ended_by) == (CallStatus.COMPLETED, "allotted_timeout", None)
        await make_provider().discard_recording(call.ref)


async def test_what_is_read_back_is_what_was_reported(lab: Lab, make_provider: MakeProvider) -> None:
    """`fetch` replaces missed events, at every step of a call."""
    provider = make_provider()

    async def now() -> list[tuple[str, bool]]:
        snapshot = await provider.fetch(call.ref)
        return [(event.key, event.agent_waiting) for event in snapshot.events] if snapshot else []

    async with Following(provider, new_order(lab.number("203"), lab.number("100"))).placed() as call:
        call.connects = False
        await call.until(lambda event: event.key == "agent:ringing")
        assert await now() == [("agent:ringing", False)]
        await call.until(lambda event: event.agent_waiting)
        assert await now() == [("agent:answered", True)]
        assert isinstance(await provider.connect(call.order), Accepted)
        await call.until(lambda event: event.key == "customer:ringing")
        assert await now() == [("agent:answered", False), ("customer:ringing", False)]
        await call.until(lambda event: event.key == "answered")
        assert await now() == [("agent:answered", False), ("answered", False)]
        await call.until_ended()
        assert await now() == [("agent:answered", True)], "alone: the customer has left"
        await provider.hangup(call.ref)
        async with asyncio.timeout(10):  # Asterisk acknowledges a hangup before the channel is gone
            while await provider.fetch(call.ref) is not None:
                await asyncio.sleep(0.05)
    await provider.discard_recording(call.ref)


async def test_an_extension_is_dialed_by_its_own_template(lab: Lab, make_provider: MakeProvider) -> None:
    extension = f"0100{secrets.randbelow(1000):03}"
    order = replace(new_order(lab.number("201"), lab.number("100")), agent_number=Extension(extension))
    provider = make_provider(extension_dial="PJSIP/{number}@trunk-from")
    assert provider.capabilities.extension_refusal is None
    async with Following(provider, order).placed() as call:
        ended = await call.until_ended()
    assert ended.status == CallStatus.COMPLETED
    assert [invite.number for invite in lab.phones.invites()].count(extension) == 1


async def test_an_extension_without_a_template_is_refused(lab: Lab, make_provider: MakeProvider) -> None:
    provider = make_provider()
    assert provider.capabilities.extension_refusal is not None
    result = await provider.place(replace(new_order(lab.number("201"), ""), agent_number=Extension("0100")))
    assert isinstance(result, Rejected)
    assert "RINGBACK_ASTERISK_EXTENSION_DIAL" in result.reason
    assert result.retry_after is None


# The Stasis application


async def test_no_installation_takes_the_events_of_another(lab: Lab, make_provider: MakeProvider) -> None:
    app = f"shared-{secrets.token_hex(4)}"
    ours, theirs = make_provider(app=app, installation="ours"), make_provider(app=app, installation="theirs")
    async with ours.listen():
        with pytest.raises(ProviderError, match="is held by the installation ours"):
            async with theirs.listen():
                pytest.fail("it took the application over")
        held = (await findings(theirs))["application"]
        assert not held.ok
        assert "RINGBACK_ASTERISK_APP" in held.fix
        assert (await findings(ours))["application"].ok
        async with make_provider(app=app, installation="ours").listen():
            pass  # another worker of ours takes over, as when the first one is gone

    async def can_be_had() -> bool:
        return (await findings(theirs))["application"].ok

    await eventually(can_be_had)
    async with theirs.listen():
        assert not (await findings(ours))["application"].ok


async def test_nor_of_another_program(lab: Lab, make_provider: MakeProvider) -> None:
    app = f"dialer-{secrets.token_hex(4)}"
    program = Ari(lab.server.url, USERNAME, ARI_PASSWORD)
    async with program.events(app):
        with pytest.raises(ProviderError, match="is held by another program"):
            async with make_provider(app=app).listen():
                pytest.fail("it took the application over")
    await program.aclose()


async def test_each_installation_has_an_application_of_its_own(lab: Lab, make_provider: MakeProvider) -> None:
    one, other = make_provider(app=None, installation="one"), make_provider(app=None, installation="other")
    async with one.listen(), other.listen():
        seen = [(await findings(provider))["application"] for provider in (one, other)]
    assert [(finding.ok, finding.seen) for finding in seen] == [(True, "ringback-one"), (True, "ringback-other")]


# `ringback providers check`


async def findings(provider: Asterisk) -> dict[str, Finding]:
    return {finding.what: finding async for finding in provider.check()}


async def test_the_check_names_what_is_missing_and_how_to_mend_it(lab: Lab, make_provider: MakeProvider) -> None:
    async def missing(**changed: object) -> dict[str, Finding]:
        found = await findings(make_provider(**changed))
        return {what: finding for what, finding in found.items() if not finding.ok}

    assert "http.conf" in (await missing(url="http://127.0.0.1:9"))["ARI"].fix
    assert "ari.conf" in (await missing(password="wrong"))["credentials"].fix
    assert "RINGBACK_ASTERISK_DIAL" in (await missing(dial="PJSIP/{number}@nobody"))["trunk"].fix
    assert "password" in (await missing(dial="PJSIP/{number}@trunk-refused"))["registration"].fix
    wrong_ami = await missing(ami_username="nobody", ami_password="wrong")
    assert "manager.conf" in wrong_ami["AMI"].fix
    assert set(wrong_ami) == {"AMI"}


async def test_the_check_takes_a_dialplan_for_a_trunk(lab: Lab, make_provider: MakeProvider) -> None:
    for dial in ("Local/{number}@from-internal", "PJSIP/{number}"):
        assert (await findings(make_provider(dial=dial)))["trunk"].ok, dial


async def test_the_check_sees_a_module_that_is_not_loaded(lab: Lab, make_provider: MakeProvider) -> None:
    lab.server.run("module unload app_mixmonitor.so")
    try:
        found = await findings(make_provider())
        assert "app_mixmonitor" in found["modules"].seen
        assert not found["recording"].ok
    finally:
        lab.server.run("module load app_mixmonitor.so")
    assert all(finding.ok for finding in (await findings(make_provider())).values())


async def test_the_check_leaves_nothing_behind_and_calls_nobody(lab: Lab, make_provider: MakeProvider) -> None:
    before = lab.phones.invites()
    seen = (await findings(make_provider()))["recording"].seen
    assert float(seen.partition(" s on two channels")[0]) >= 0.9, seen
    assert lab.phones.invites() == before
    assert not [path for path in lab.server.recordings() if "check" in path.name]
