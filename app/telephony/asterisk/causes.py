"""Why a leg ended: Q.850 cause codes, in FreeSWITCH's words, with a text for people."""

from dataclasses import dataclass

from app.telephony.base import CallStatus, Leg

_S = CallStatus

NORMAL = 16
NO_USER_RESPONSE = 18
NO_ANSWER = 19

# Decided by the cause, because refusals often come without a SIP code or a dial status.
_CAUSES: dict[int, tuple[CallStatus, str, str]] = {
    1: (_S.FAILED, "unallocated_number", "{whose} number is not in service"),
    2: (_S.FAILED, "no_route_transit_net", "The trunk has no route to {whose} number"),
    3: (_S.FAILED, "no_route_destination", "The trunk has no route to {whose} number"),
    16: (_S.NO_ANSWER, "normal_clearing", "{who} did not answer"),
    17: (_S.BUSY, "user_busy", "{whose} line is busy"),
    18: (_S.FAILED, "no_user_response", "{whose} telephone could not be reached"),
    19: (_S.NO_ANSWER, "no_answer", "{who} did not answer"),
    20: (_S.NO_ANSWER, "subscriber_absent", "{whose} telephone is switched off or out of reach"),
    21: (_S.NO_ANSWER, "call_rejected", "{who} rejected the call"),
    22: (_S.FAILED, "number_changed", "{whose} number has changed"),
    27: (_S.FAILED, "destination_out_of_order", "{whose} line is out of order"),
    28: (
        _S.FAILED,
        "invalid_number_format",
        "The trunk does not understand {whose} number. Check number_format (RINGBACK_ASTERISK_NUMBER_FORMAT)",
    ),
    34: (_S.FAILED, "normal_circuit_congestion", "The trunk has no free line"),
    38: (_S.FAILED, "network_out_of_order", "The telephone network is out of order"),
    41: (_S.FAILED, "normal_temporary_failure", "The telephone network has a temporary failure"),
    42: (_S.FAILED, "switch_congestion", "The telephone network is congested"),
    50: (_S.FAILED, "facility_not_subscribed", "The trunk is not allowed to make this call"),
    52: (_S.FAILED, "outgoing_call_barred", "The trunk is not allowed to make this call"),
    57: (_S.FAILED, "bearercapability_notauth", "The trunk is not allowed to make this call"),
    58: (_S.FAILED, "bearercapability_notavail", "The trunk and the telephone found no common codec"),
    88: (_S.FAILED, "incompatible_destination", "The trunk and the telephone found no common codec"),
    102: (_S.FAILED, "recovery_on_timer_expire", "{whose} telephone could not be reached"),
    127: (_S.FAILED, "interworking", "The telephone network refused the call"),
}
_UNKNOWN = (_S.FAILED, "normal_unspecified", "The telephone network refused the call")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an unanswered leg ended."""

    status: CallStatus
    hangup_cause: str
    detail: str


def unanswered(leg: Leg, cause: int, sip: int | None, *, rang: bool, by_timeout: bool) -> Ending:
    """What it means that a leg ended before it was answered.

    `by_timeout`: Asterisk itself gave up, so the SIP code is its own. A leg that did not even ring then was never
    reached, which is not the same as not answered.
    """
    if by_timeout and not rang:
        cause = NO_USER_RESPONSE
    status, word, said = _CAUSES.get(cause, _UNKNOWN)
    who = f"The {leg}"
    sentence = said.format(who=who, whose=f"{who}'s")
    return Ending(status, word, f"{sentence} ({_codes(cause, None if by_timeout else sip)})")


def talked(cause: int, *, capped: bool) -> str:
    """The hangup cause of an answered call."""
    if capped:
        return "allotted_timeout"
    return _CAUSES.get(cause, _UNKNOWN)[1]


def _codes(cause: int, sip: int | None) -> str:
    return f"SIP {sip}, Q.850 {cause}" if sip else f"Q.850 {cause}"
