"""Examines what a first call needs, in order, each with its fix. Nobody is called."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from app.numbers import PhoneNumber
from app.telephony.asterisk.application import FIX, Application
from app.telephony.asterisk.ari import Ari
from app.telephony.asterisk.manager import manager, start_recording
from app.telephony.asterisk.options import AsteriskOptions
from app.telephony.base import Finding, ProviderError

_OLDEST_VERSION = 18
_MODULES = (
    "res_ari_channels",
    "res_ari_bridges",
    "res_ari_recordings",
    "res_ari_events",
    "res_http_websocket",
    "app_stasis",
    "app_mixmonitor",
    "bridge_simple",
    "func_timeout",
    "func_callerid",
    "format_sln",
)
_EXAMPLE, _EXAMPLE_ABROAD = PhoneNumber("919876543210"), PhoneNumber("447400123456")


async def check(
    options: AsteriskOptions, ari: Ari, application: Application, home_country: str
) -> AsyncIterator[Finding]:
    """Stops where the rest would be pointless."""
    ready = False
    async for finding in _reachable(options, ari):
        ready = finding.ok
        yield finding
    if not ready:
        return
    yield await _holder(application, ari)
    yield await _modules(options, ari)
    async for finding in _trunk(options, ari):
        yield finding
    try:
        async with manager(options):
            pass
    except ProviderError as error:
        yield Finding(
            "AMI",
            ok=False,
            seen=str(error),
            fix="In manager.conf: enabled = yes, and a user with write = system,call and read = system,call; "
            "name it by the options ami_username and ami_password if it is not ARI's",
        )
    else:
        yield Finding("AMI", ok=True, seen="{}:{}".format(*options.ami()))
        yield await _recording(options, ari)
        if options.announcement is not None:
            yield await _announcement(options.announcement, ari)
    examples = [f"{number} as {options.endpoint(number, home_country)}" for number in (_EXAMPLE, _EXAMPLE_ABROAD)]
    yield Finding("number format", ok=True, seen=f"at home in {home_country}: dials {', '.join(examples)}")
    yield Finding(
        "extensions",
        ok=True,
        seen=f"agents of 2 to 7 digits are dialed as {options.extension_dial}"
        if options.extension_dial is not None
        else "agents of 2 to 7 digits are refused. The option extension_dial can say how to dial them",
    )


async def _holder(application: Application, ari: Ari) -> Finding:
    other = await application.find_other_holder(ari)
    return Finding(
        "application",
        ok=other is None,
        seen=application.name if other is None else f"{application.name} is held by {other}",
        fix=FIX,
    )


async def _reachable(options: AsteriskOptions, ari: Ari) -> AsyncIterator[Finding]:
    try:
        info = await ari.request("GET", "/asterisk/info")
    except ProviderError as error:
        yield Finding(
            "ARI",
            ok=False,
            seen=str(error),
            fix="Is Asterisk running? In http.conf: enabled = yes, bindaddr and bindport as in the option url; "
            "in ari.conf: enabled = yes; then: module load res_ari.so. A firewall must let this machine through",
        )
        return
    if not info.ok and info.status not in (401, 403):
        yield Finding(
            "ARI", ok=False, seen=info.description, fix="If Asterisk is only just starting, try again in a moment"
        )
        return
    yield Finding("ARI", ok=True, seen=str(options.url))
    if not info.ok:
        yield Finding(
            "credentials",
            ok=False,
            seen=info.description,
            fix=f"In ari.conf: [{options.username}] with type = user, read_only = no and the password of "
            "the option password; then: module reload res_ari.so",
        )
        return
    yield Finding("credentials", ok=True, seen=options.username)
    version = str(info.body["system"]["version"])
    major = version.split(".")[0]
    yield Finding(
        "version",
        ok=not major.isdigit() or int(major) >= _OLDEST_VERSION,
        seen=version,
        fix=f"Asterisk {_OLDEST_VERSION} or newer is needed to dial a leg that was created before",
    )


async def _modules(options: AsteriskOptions, ari: Ari) -> Finding:
    answer = await ari.request("GET", "/asterisk/modules")
    running = {
        module["name"].removesuffix(".so") for module in answer.body if answer.ok and module["status"] == "Running"
    }
    needed = (*_MODULES, "chan_pjsip") if options.dial.upper().startswith("PJSIP/") else _MODULES
    missing = [name for name in needed if name not in running]
    return Finding(
        "modules",
        ok=not missing,
        seen=f"{', '.join(missing)} not loaded" if missing else "all there",
        fix="In modules.conf: load = NAME.so for each, or autoload = yes; then restart Asterisk",
    )


async def _trunk(options: AsteriskOptions, ari: Ari) -> AsyncIterator[Finding]:
    technology, _, resource = options.dial.partition("/")
    name = resource.rpartition("@")[2].partition("/")[0]
    # a way into a dialplan, which ARI does not list as an endpoint
    if "{number}" in name or technology.upper() == "LOCAL":
        yield Finding("trunk", ok=True, seen=f"{options.dial}: names no trunk, nothing to look at")
        return
    answer = await ari.request("GET", f"/endpoints/{technology}/{name}")
    if not answer.ok:
        yield Finding(
            "trunk",
            ok=False,
            seen=f"{technology}/{name}: {answer.description}",
            fix="The option dial (RINGBACK_ASTERISK_DIAL) must name an endpoint of pjsip.conf; "
            "`pjsip show endpoints` lists them",
        )
        return
    state = answer.body["state"]
    yield Finding(
        "trunk",
        ok=state != "offline",
        seen=f"{technology}/{name} is {state}",
        fix="The provider does not answer OPTIONS: check its address, your firewall and qualify_frequency",
    )
    if technology.upper() == "PJSIP":
        async for finding in _endpoint(options, ari, name):
            yield finding
        async for finding in _registrations(options, name):
            yield finding


async def _endpoint(options: AsteriskOptions, ari: Ari, trunk: str) -> AsyncIterator[Finding]:
    """Transport, codecs and encryption of the trunk's endpoint."""
    details: dict[str, str] = {}
    with suppress(ProviderError):  # AMI is examined next
        async with manager(options) as ami:
            for event in await ami.list("PJSIPShowEndpoint", Endpoint=trunk):
                if event.get("Event") == "EndpointDetail":
                    details = dict(event.items())
    if not details:
        return
    transport = details.get("Transport") or "any transport"
    yield Finding("transport", ok=True, seen=f"{trunk} uses {transport}")
    codecs = details.get("Allow", "").strip("()").split("|")
    yield Finding(
        "codecs",
        ok=bool(_TELEPHONE_CODECS & set(codecs)),
        seen=", ".join(codecs),
        fix="Telephone networks speak alaw or ulaw: allow = alaw,ulaw",
    )
    if details.get("MediaEncryption", "no") not in ("no", "none", ""):
        answer = await ari.request("GET", "/asterisk/modules/res_srtp.so")
        loaded = answer.ok and answer.body["status"] == "Running"
        yield Finding(
            "encryption",
            ok=loaded,
            seen=f"{details['MediaEncryption']}, and res_srtp is {'' if loaded else 'not '}loaded",
            fix="In modules.conf: load = res_srtp.so; then restart Asterisk",
        )


async def _registrations(options: AsteriskOptions, trunk: str) -> AsyncIterator[Finding]:
    """Registrations that are named after the trunk, as the wizard and FreePBX name them. A trunk that trusts an address
    has none."""
    with suppress(ProviderError):  # AMI is examined next
        async with manager(options) as ami:
            for event in await ami.list("PJSIPShowRegistrationsOutbound"):
                name = event.get("ObjectName", "")
                if event.get("Event") == "OutboundRegistrationDetail" and name.startswith(trunk):
                    status = event.get("Status", "")
                    yield Finding(
                        "registration",
                        ok=status == "Registered",
                        seen=f"{name}: {status}",
                        fix="Check the account's user name and password in pjsip_wizard.conf",
                    )


async def _recording(options: AsteriskOptions, ari: Ari) -> Finding:
    """Record a second of a tone."""
    try:
        async with _test_channel(ari) as (name, _):
            async with manager(options) as ami:
                await start_recording(ami, name, name)
            await ari.request("POST", f"/channels/{name}/play", media="tone:425")
            await asyncio.sleep(1)
        await asyncio.sleep(0.5)
        async with ari.download(f"/recordings/stored/{name}/file") as answer:
            size = len(await answer.read()) if answer.status == 200 else 0
        await ari.request("DELETE", f"/recordings/stored/{name}")
    except (ProviderError, TimeoutError) as error:
        return Finding("recording", ok=False, seen=str(error) or "nothing happened", fix=_RECORDING_FIX)
    return Finding(
        "recording",
        ok=size > 0,
        seen=f"{size / 32000:.1f} s on two channels" if size else "no file",
        fix=_RECORDING_FIX,
    )


async def _announcement(sound: str, ari: Ari) -> Finding:
    """Play the sound. A sound that Asterisk cannot play ends at once."""
    problem = ""
    try:
        async with _test_channel(ari) as (name, events):
            answer = await ari.request("POST", f"/channels/{name}/play", media=sound)
            problem = "" if answer.ok else answer.description
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    async for event in events:
                        if event["type"] == "PlaybackFinished":
                            problem = "Asterisk cannot play it" if event["playback"]["state"] == "failed" else problem
                            break
    except (ProviderError, TimeoutError) as error:
        problem = str(error) or "nothing happened"
    return Finding("announcement", ok=not problem, seen=f"{sound}: {problem or 'plays'}", fix=_ANNOUNCEMENT_FIX)


@asynccontextmanager
async def _test_channel(ari: Ari) -> AsyncIterator[tuple[str, AsyncIterator[dict[str, Any]]]]:
    """A channel that leads nowhere, in its own application: its name, and the events. Raises `ProviderError`."""
    name = f"ringback-check-{secrets.token_hex(4)}"
    async with ari.events(name) as events:
        made = await ari.request(
            "POST",
            "/channels/externalMedia",
            app=name,
            channelId=name,
            external_host="127.0.0.1:9",
            format="slin",
        )
        if not made.ok:
            raise ProviderError(
                f"no channel to try it on: {made.description}. In modules.conf: load = chan_rtp.so, "
                "which only this test needs"
            )
        try:
            async with asyncio.timeout(5):
                async for event in events:
                    if event["type"] == "StasisStart":
                        break
            yield name, events
        finally:
            await ari.request("DELETE", f"/channels/{name}")


_TELEPHONE_CODECS = {"alaw", "ulaw"}
_RECORDING_FIX = (
    "The AMI user needs write = system,call; Asterisk must be able to write to its spool folders monitor and "
    "recording, which lie side by side"
)
_ANNOUNCEMENT_FIX = (
    "The option announcement names a sound without its ending: sound:custom/recorded is the file "
    "custom/recorded.wav in Asterisk's folder of sounds, with 8,000 samples a second on one channel. "
    "Asterisk must have loaded res_stasis_playback, res_ari_playbacks and format_wav"
)
