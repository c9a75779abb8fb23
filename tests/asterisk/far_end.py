"""An Asterisk that answers every call, and the trunks of docs/trunks.md that lead to it."""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import numpy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.asterisk import AsteriskServer, free_port

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
 same => n,MixMonitor(all-${{EXTEN}}.raw,r(HEARD/${{EXTEN}}.raw))
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
        self._heard = folder / "heard"
        self._heard.mkdir()
        self.tcp, self.tls = free_port(), free_port()
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        _make_certificate(self.certificate, self.key)
        endpoints = FAR_ENDPOINTS.format(
            tcp=self.tcp, tls=self.tls, certificate=self.certificate, key=self.key, encryption=encryption
        )
        more = {
            "modules.conf": FAR_MODULES,
            "extensions.conf": FAR_DIALPLAN.replace("HEARD", str(self._heard)),
            "pjsip.conf": endpoints,
        }
        self.server = AsteriskServer(folder / "asterisk", more=more)

    @property
    def udp(self) -> int:
        return self.server.sip_port

    def heard(self, number: str) -> "numpy.typing.NDArray[numpy.int16]":
        """What the telephone of this number has heard: 8,000 samples a second."""
        return numpy.fromfile(self._heard / f"+{number}.raw", dtype="<i2")


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


def recipe(name: str, transport: str, far: FarEnd, port: int) -> dict[str, str]:
    """The configuration files of a recipe, with the far end's address instead of the provider's."""
    (trunk,) = re.findall(rf'```ini title="pjsip_wizard.conf: {name}"\n(.*?)```', PAGE, flags=re.DOTALL)
    transports = "\n".join(re.findall(r'```ini title="pjsip.conf"\n(.*?)```', PAGE, flags=re.DOTALL))
    (section,) = re.findall(rf"\[{transport}\]\n.*?(?=\n\[|\Z)", transports, flags=re.DOTALL)
    section = re.sub(r"bind = .*", f"bind = 127.0.0.1:{free_port()}", section)
    for option, file in (("ca_list_file", far.certificate), ("cert_file", far.certificate), ("priv_key_file", far.key)):
        section = re.sub(rf"^{option} = .*", f"{option} = {file}", section, flags=re.MULTILINE)
    trunk = re.sub(r"remote_hosts = .*", f"remote_hosts = 127.0.0.1:{port}", trunk)
    files = {
        "pjsip_wizard.conf": trunk.replace(
            "qualify_frequency = 60", "qualify_frequency = 1\naor/qualify_timeout = 30.0"
        )
    }
    return files if transport == "transport-udp" else files | {"pjsip.conf": section}
