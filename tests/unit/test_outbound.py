"""The addresses that clients' URLs may reach."""

from ipaddress import ip_address

import pytest

from app.outbound import AddressRefused, Outbound, is_public, parse_networks


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "168.63.129.16",
        "192.0.0.192",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001::1",
        "2001:db8::1",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_a_network_can_be_allowed() -> None:
    outbound = Outbound(parse_networks("10.1.0.0/16, ::1/128"))
    outbound.check("10.1.2.3")
    outbound.check("::1")
    with pytest.raises(AddressRefused, match="RINGBACK_OUTBOUND_NETWORKS"):
        outbound.check("10.2.0.1")
