"""Whether calls can be made with this account. Calls nobody."""

from collections.abc import AsyncIterator

from app.numbers import PhoneNumber
from app.telephony.base import Finding
from app.telephony.rest import NoResponse, RestClient


async def check(
    rest: RestClient, account: str, caller_id: PhoneNumber | None, *, lists_numbers: bool, has_public_address: bool
) -> AsyncIterator[Finding]:
    """`account` is the path of the account. `lists_numbers`: the provider tells whether a number belongs to it."""
    try:
        response = await rest.request("GET", f"{account}/Call/", query={"status": "live"})
        seen = f"{rest.base_url}: {response.description}"
        yield Finding("account", ok=response.ok, seen=seen, fix="401: check auth_id and auth_token. Otherwise base_url")
        if not response.ok:
            return
        if caller_id is not None and lists_numbers:
            response = await rest.request("GET", f"{account}/Number/{caller_id}/")
            seen = f"+{caller_id}: {response.description}"
            yield Finding(
                "caller ID", ok=response.ok, seen=seen, fix="Rent this number there, or set caller_id to another"
            )
    except NoResponse as error:
        yield Finding("account", ok=False, seen=str(error), fix="Check base_url, this machine's DNS and its firewall")
        return
    yield Finding(
        "public address",
        ok=has_public_address,
        seen="is set. Only a call can show whether it is reached" if has_public_address else "is not set",
        fix=f"Set RINGBACK_PUBLIC_URL to the address at which {rest.name} reaches this server",
    )
