"""The recipes of docs/trunks.md, as they stand there: an Asterisk with each trunk calls another one, the far end."""

import asyncio
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import numpy
import pytest
import soundfile
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.base import AdapterContext, CallStatus, RecordingUnavailable
from lab.asterisk import AsteriskServer, free_port
from tests.provider_contract import Following, new_order

PAGE = (Path(__file__).parents[2] / "docs/trunks.md").read_text()
TONE = 425
"""Hertz. The agent's telephone plays it, and the customer's sends back what it receives."""

FAR_MODULES = """
load = res_pjsip_endpoint_identifier_anonymous.so
load = app_echo.so
load = app_playtones.so
"""
FAR_DIALPLAN = f"""
[far]
exten => _[+0-9].,1,Answer()
 same => n,GotoIf($["${{EXTEN:-1}}" = "1"]?agent)
 same => n,Set(TIMEOUT(absolute)=4)
 same => n,Echo()
 same => n(agent),PlayTones({TONE})
 same => n,Wait(60)
"""
FAR_ENDPOINTS = """
[far-tcp]
type = transport
protocol = tcp
bind = 127.0.0.1:{tcp}

[far-tls]
type = transport
protocol = tls
bind = 127.0.0.1:{tls}
cert_file = {certificate}
priv_key_file = {key}
method = tlsv1_2

[telephones](!)
type = endpoint
context = far
disallow = all
allow = alaw,ulaw
direct_media = no
media_encryption = {encryption}

; whoever is known by the address
[anonymous](telephones)

[ACCOUNT](telephones)
auth = ACCOUNT
aors = ACCOUNT

[ACCOUNT]
type = auth
auth_type = userpass
username = ACCOUNT
password = SECRET

[ACCOUNT]
type = aor
max_contacts = 1
"""


class FarEnd:
    """An Asterisk that answers every call."""

    def __init__(self, folder: Path, *, encryption: str = "no") -> None:
        folder.mkdir()
        self.tcp, self.tls = free_port(), free_port()
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        _make_certificate(self.certificate, self.key)
        endpoints = FAR_ENDPOINTS.format(
            tcp=self.tcp, tls=self.tls, certificate=self.certificate, key=self.key, encryption=encryption
        )
        more = {"modules.conf": FAR_MODULES, "extensions.conf": FAR_DIALPLAN, "pjsip.conf": endpoints}
        self.server = AsteriskServer(folder / "asterisk", more=more)

    @property
    def udp(self) -> int:
        return self.server.sip_port


def _make_certificate(certificate: Path, key: Path) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


@pytest.fixture(scope="module")
def far_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FarEnd]]:
    """By whether they encrypt media, as `sdes` or `no`."""
    folder = tmp_path_factory.mktemp("far")
    ends = {encryption: FarEnd(folder / encryption, encryption=encryption) for encryption in ("no", "sdes")}
    for end in ends.values():
        end.server.start()
    yield ends
    for end in ends.values():
        end.server.stop()


def recipe(name: str, transport: str, far: FarEnd, port: int) -> dict[str, str]:
    """The configuration files of a recipe, with the far end's address instead of the provider's."""
    (trunk,) = re.findall(rf'```ini title="pjsip_wizard.conf: {name}"\n(.*?)```', PAGE, flags=re.DOTALL)
    transports = "\n".join(re.findall(r'```ini title="pjsip.conf"\n(.*?)```', PAGE, flags=re.DOTALL))
    (section,) = re.findall(rf"\[{transport}\]\n.*?(?=\n\[|\Z)", transports, flags=re.DOTALL)
    section = re.sub(r"bind = .*", f"bind = 127.0.0.1:{free_port()}", section)
    for option, file in (("ca_list_file", far.certificate), ("cert_file", far.certificate), ("priv_key_file", far.key)):
        section = re.sub(rf"^{option} = .*", f"{option} = {file}", section, flags=re.MULTILINE)
    trunk = re.sub(r"remote_hosts = .*", f"remote_hosts = 127.0.0.1:{port}", trunk)
    files = {"pjsip_wizard.conf": trunk.replace("qualify_frequency = 60", "qualify_frequency = 1")}
    return files if transport == "transport-udp" else files | {"pjsip.conf": section}


RECIPES = {
    "register": ("transport-udp", "no"),
    "tcp": ("transport-tcp", "no"),
    "tcp with a password": ("transport-tcp", "no"),
    "tls": ("transport-tls", "sdes"),
}


@pytest.mark.parametrize("name", RECIPES)
async def test_a_call_over_each_trunk_has_audio_both_ways(
    name: str, far_ends: dict[str, FarEnd], tmp_path: Path
) -> None:
    transport, encryption = RECIPES[name]
    far = far_ends[encryption]
    port = {"transport-udp": far.udp, "transport-tcp": far.tcp, "transport-tls": far.tls}[transport]
    server = AsteriskServer(tmp_path / "near", more=recipe(name, transport, far, port))
    await asyncio.to_thread(server.start)
    options = AsteriskOptions.from_values({**server.options(), "dial": "PJSIP/{number}@trunk"})
    provider = Asterisk(options, AdapterContext("a-test", "a-test", tmp_path, "IN", longest_ring_seconds=5))
    try:
        findings = {}
        for _ in range(50):  # until it has registered, and the first OPTIONS was answered
            findings = {finding.what: finding async for finding in provider.check()}
            if all(finding.ok for finding in findings.values()):
                break
            await asyncio.sleep(0.2)
        assert [finding for finding in findings.values() if not finding.ok] == []
        assert transport.removeprefix("transport-") in findings["transport"].seen
        assert ("registration" in findings) is (name == "register")
        assert ("encryption" in findings) is (encryption == "sdes")

        order = new_order(customer="919876543212", agent="919876543211")
        async with Following(provider, order).placed() as call:
            ended = await call.until_ended()
        assert ended.status is CallStatus.COMPLETED, ended
        recording = await provider.open_recording(call.ref, None)
        audio, rate = soundfile.read(io.BytesIO(b"".join([chunk async for chunk in recording.chunks])))
        for channel in range(2):
            assert _loudest_frequency(audio[:, channel], rate) == pytest.approx(TONE, abs=10), channel
    finally:
        await provider.aclose()
        await asyncio.to_thread(server.stop)


async def test_a_call_that_is_not_to_be_recorded(far_ends: dict[str, FarEnd], tmp_path: Path) -> None:
    far = far_ends["no"]
    server = AsteriskServer(tmp_path / "near", more=recipe("tcp", "transport-tcp", far, far.tcp))
    await asyncio.to_thread(server.start)
    options = AsteriskOptions.from_values({**server.options(), "dial": "PJSIP/{number}@trunk"})
    provider = Asterisk(options, AdapterContext("a-test", "a-test", tmp_path, "IN", longest_ring_seconds=5))
    try:
        order = replace(new_order(customer="919876543212", agent="919876543211"), record=False)
        async with Following(provider, order).placed() as call:
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        with pytest.raises(RecordingUnavailable):
            await provider.open_recording(call.ref, None)
        assert await asyncio.to_thread(server.recordings) == []
    finally:
        await provider.aclose()
        await asyncio.to_thread(server.stop)


def _loudest_frequency(samples: "numpy.typing.NDArray[numpy.float64]", rate: int) -> float:
    spectrum = numpy.abs(numpy.fft.rfft(samples))
    return float(numpy.argmax(spectrum) * rate / len(samples))
