"""The addresses that clients' URLs may reach."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Python's `is_global` lets these pass.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # services of a cloud
        "2001::/23",  # Teredo and other protocol assignments
        "2002::/16",  # 6to4: has an IPv4 address inside
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")


def parse_networks(networks: str) -> list[Network]:
    """The networks of a comma-separated list. Raises ValueError."""
    return [ip_network(part.strip()) for part in networks.split(",") if part.strip()]


def is_public(address: Address) -> bool:
    """Whether the address is on the public Internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _PUBLIC_IPV6:
            return False
    inside = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not address.is_reserved and not inside
