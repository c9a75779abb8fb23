"""Examines what a first call needs, in order, each with its fix. Nobody is called."""

from collections.abc import AsyncIterator

from app.numbers import NumberRules, PhoneNumber
from app.telephony.base import Finding, ProviderError
from app.telephony.exotel.calls import refusal
from app.telephony.exotel.options import ExotelOptions
from app.telephony.rest import RestClient, RestResponse

_EXAMPLE = PhoneNumber("919876543210")
_PAGES = 10


async def check(
    options: ExotelOptions,
    rest: RestClient,
    legs: RestClient | None,
    rules: NumberRules,
    caller_id: PhoneNumber | None,
) -> AsyncIterator[Finding]:
    """Stops where the rest would be pointless."""
    account = f"/v1/Accounts/{options.account_sid}"
    try:
        balance = await rest.request("GET", f"{account}/Balance.json")
    except ProviderError as error:
        yield Finding(
            "Exotel", ok=False, seen=str(error), fix="Check the option url. A firewall must let this machine through"
        )
        return
    yield Finding("Exotel", ok=True, seen=rest.base_url)
    if balance.status in (401, 404):
        yield Finding(
            "credentials",
            ok=False,
            seen=refusal(balance),
            fix="Copy account_sid, api_key and api_token from API Settings, and the url of the account's region",
        )
        return
    yield Finding("credentials", ok=True, seen=options.account_sid)
    yield _balance(balance)
    try:
        yield await _calls(rest, account)
        yield await _exophones(options, rest, rules, caller_id)
        if legs is not None:
            yield await _legs(options, legs)
    except ProviderError as error:
        yield Finding("Exotel", ok=False, seen=str(error), fix="If Exotel is only just starting, try again in a moment")
    spelled = _EXAMPLE.format(options.number_format, rules.home_country)
    yield Finding("number format", ok=True, seen=f"at home in {rules.home_country}: dials {_EXAMPLE} as {spelled}")


def _balance(response: RestResponse) -> Finding:
    try:
        data = response.body["Account"]["BalanceData"]
        left, currency, plan = float(data["Balance"]), data.get("Currency", ""), data.get("PricingPlan", "")
    except (KeyError, TypeError, ValueError):
        return Finding("balance", ok=True, seen=f"not told: {refusal(response)}")
    return Finding(
        "balance",
        ok=left > 0 or plan != "Pay As You Go",
        seen=f"{left:.2f} {currency} {plan}".strip(),
        fix="Recharge the account",
    )


async def _calls(rest: RestClient, account: str) -> Finding:
    response = await rest.request("GET", f"{account}/Calls.json", query=[("PageSize", "1")])
    return Finding(
        "list of calls",
        ok=response.ok,
        seen="can be read" if response.ok else refusal(response),
        fix="The API key must be allowed to read calls. Without it, an order whose answer is lost cannot be found",
    )


async def _exophones(
    options: ExotelOptions, rest: RestClient, rules: NumberRules, caller_id: PhoneNumber | None
) -> Finding:
    found: list[PhoneNumber] = []
    for page in range(_PAGES):
        path = f"/v2_beta/Accounts/{options.account_sid}/IncomingPhoneNumbers"
        response = await rest.request("GET", path, query=[("Page", str(page)), ("PageSize", "50")])
        listed = response.body.get("incoming_phone_numbers") if isinstance(response.body, dict) else None
        if not response.ok or not isinstance(listed, list):
            return Finding("ExoPhones", ok=True, seen=f"not told: {refusal(response)}")
        for exophone in listed:
            try:
                found.append(rules.read(str(exophone["phone_number"])))
            except (KeyError, TypeError, ValueError):
                continue
        if not response.body.get("next_page_uri") or not listed:
            break
    seen = ", ".join(f"+{number}" for number in found[:5]) or "none"
    if caller_id is None:
        return Finding(
            "ExoPhones",
            ok=bool(found),
            seen=f"{seen}. Each call must name one",
            fix="Buy an ExoPhone, or set caller_id",
        )
    return Finding(
        "ExoPhones",
        ok=caller_id in found,
        seen=f"caller_id is +{caller_id}. The account has {seen}",
        fix="Set caller_id to an ExoPhone of this account",
    )


async def _legs(options: ExotelOptions, legs: RestClient) -> Finding:
    """A call that there cannot be. If the interface is enabled, it says that it does not know it."""
    response = await legs.request("GET", f"/v3/accounts/{options.account_sid}/calls/none/legs")
    inner = response.body.get("response") if isinstance(response.body, dict) else None
    error = inner.get("error_data") if isinstance(inner, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return Finding(
        "call legs",
        ok=code == _CALL_NOT_FOUND,
        seen=f"{legs.base_url}: {response.description}",
        fix="Ask Exotel to enable the Call Legs API for the account, or remove legs_url",
    )


_CALL_NOT_FOUND = 10744
