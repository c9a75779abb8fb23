"""Whether calls can be made with this account. Calls nobody."""

from collections.abc import AsyncIterator

from app.numbers import PhoneNumber
from app.telephony.base import Finding
from app.telephony.rest import NoResponse, RestClient, RestResponse
from app.telephony.twilio.options import TwilioOptions


async def check(
    rest: RestClient, account: str, options: TwilioOptions, caller_id: PhoneNumber | None
) -> AsyncIterator[Finding]:
    """`account` is the path of the account."""
    # Twilio's standard API keys may not read the account itself.
    path = f"{account}.json" if options.api_key is None else f"{account}/Calls.json?PageSize=1"
    try:
        response = await rest.request("GET", path)
    except NoResponse as error:
        yield Finding("account", ok=False, seen=str(error), fix="Check base_url, this machine's DNS and its firewall")
        return
    yield _account(response, rest.base_url, options)
    if not response.ok:
        return
    try:
        yield await _caller_id(rest, account, caller_id)
    except NoResponse as error:
        yield Finding("caller ID", ok=False, seen=str(error), fix="Check the network, and run this again")
    yield Finding(
        "notifications",
        ok=True,
        seen="their signatures are checked"
        if options.auth_token is not None
        else "their signatures are not checked: that needs auth_token. The secret in their URL is",
    )


def _account(response: RestResponse, base_url: str, options: TwilioOptions) -> Finding:
    seen = f"{base_url}: {response.description}"
    if response.status in (401, 403, 404):
        secret = "auth_token" if options.api_key is None else "api_key and api_secret"
        return Finding(
            "account", ok=False, seen=seen, fix=f"Check account_sid, and {secret}, in the provider's console"
        )
    if not response.ok or not isinstance(response.body, dict):
        return Finding("account", ok=False, seen=seen, fix="Check base_url. Is the provider's status page green?")
    status = response.find("status") or "active"
    if status != "active":
        return Finding("account", ok=False, seen=f"{base_url}: {status}", fix="Reactivate it in the provider's console")
    trial = " It is a trial: it calls verified numbers only" if response.find("type") == "Trial" else ""
    return Finding("account", ok=True, seen=f"{base_url}: {options.account_sid} is active.{trial}")


async def _caller_id(rest: RestClient, account: str, caller_id: PhoneNumber | None) -> Finding:
    """Bought numbers, then numbers that were verified to be shown."""
    query = {"PageSize": "1"} if caller_id is None else {"PhoneNumber": f"+{caller_id}"}
    for path, name, kind in (
        ("IncomingPhoneNumbers", "incoming_phone_numbers", "a number of this account"),
        ("OutgoingCallerIds", "outgoing_caller_ids", "a verified number of this account"),
    ):
        response = await rest.request("GET", f"{account}/{path}.json", query=query)
        if not response.ok or not isinstance(response.body, dict):
            return Finding(
                "caller ID",
                ok=False,
                seen=f"{path}: {response.description}",
                fix="Give the API key the right to read phone numbers, or use auth_token",
            )
        found = response.body.get(name)
        if found and caller_id is not None:
            return Finding("caller ID", ok=True, seen=f"+{caller_id} is {kind}")
        if found:
            return Finding(
                "caller ID", ok=True, seen="caller_id is not set: each call needs one of the account's numbers"
            )
    if caller_id is None:
        return Finding(
            "caller ID", ok=False, seen="the account has no number", fix="Buy a number, or verify one of yours"
        )
    return Finding(
        "caller ID",
        ok=False,
        seen=f"+{caller_id} is no number of this account",
        fix="Buy it or verify it in the provider's console, or set caller_id to a number of the account",
    )
