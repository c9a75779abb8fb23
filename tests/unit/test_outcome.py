"""The outcome of what the customer says."""

import pytest

from app.transcription.base import Role, SpokenTurn
from app.transcription.outcome import (
    CALLBACK,
    CONNECTED,
    DO_NOT_CALL,
    INTERESTED,
    NO_CONVERSATION,
    NOT_INTERESTED,
    OUTCOMES,
    VOICEMAIL,
    WRONG_NUMBER,
    OutcomeMatch,
    classify_outcome,
)
from app.transcription.summary import LocalSummarizer, summarize


def turn(content: str, role: Role = "customer", start: float = 0, end: float = 2) -> SpokenTurn:
    return SpokenTurn(role, content, start, end)


SAID = [
    (CALLBACK, "I am in a meeting. Can you please call me back tomorrow after four in the evening?"),
    (CALLBACK, "Please don't call me now, call me at six."),
    (CALLBACK, "Okay, sounds interesting, call me next week."),
    (CALLBACK, "Give me a call back."),
    (CALLBACK, "kal shaam ko call karna"),
    (CALLBACK, "abhi busy hoon, baad mein phone karo"),
    (CALLBACK, "कल शाम को कॉल कीजिए"),
    (CALLBACK, "बाद में फोन करना"),
    (INTERESTED, "Yes, that sounds good."),
    (INTERESTED, "I was not interested before, but now I am interested."),
    (INTERESTED, "I'd like to book one."),
    (INTERESTED, "Send me the details please."),
    (INTERESTED, "haan mujhe chahiye"),
    (INTERESTED, "details bhej do"),
    (INTERESTED, "मैं इंटरेस्टेड हूँ"),
    (INTERESTED, "हाँ मुझे चाहिए"),
    (NOT_INTERESTED, "I'm not interested, thank you."),
    (NOT_INTERESTED, "I am not really interested."),
    (NOT_INTERESTED, "No thanks."),
    (NOT_INTERESTED, "I don't want it."),
    (NOT_INTERESTED, "Call me later, actually no, I am not interested."),
    (NOT_INTERESTED, "mujhe nahi chahiye"),
    (NOT_INTERESTED, "main interested nahi hoon"),
    (NOT_INTERESTED, "मुझे नहीं चाहिए"),
    (WRONG_NUMBER, "You have the wrong number."),
    (WRONG_NUMBER, "There is nobody with that name here."),
    (WRONG_NUMBER, "galat number hai"),
    (WRONG_NUMBER, "यह गलत नंबर है"),
    (DO_NOT_CALL, "Don't call me again."),
    (DO_NOT_CALL, "Please take my number off your list."),
    (DO_NOT_CALL, "phone mat karo"),
    (DO_NOT_CALL, "मुझे कॉल मत करना"),
    (VOICEMAIL, "Please leave a message after the tone."),
    (VOICEMAIL, "You have reached the voicemail of Priya."),
    (VOICEMAIL, "Hi, this is Raj. I can't take your call right now."),
    (VOICEMAIL, "The person you are calling is not available. Please leave a message after the tone."),
    # A machine of the network: no wish of anybody, and no conversation.
    (NO_CONVERSATION, "The person you are calling is not available right now."),
    (NO_CONVERSATION, "The person you are calling is busy. Please call again after some time."),
    (
        NO_CONVERSATION,
        "The number you have dialled is currently switched off or out of coverage area. Please call back later.",
    ),
    (NO_CONVERSATION, "The subscriber is not reachable at the moment. Please try again later."),
    (
        NO_CONVERSATION,
        "The person you're calling is speaking to someone else. Please stay on the line or call again later.",
    ),
    (NO_CONVERSATION, "The mobile number you are calling does not exist. Please check the number and dial again."),
    (NO_CONVERSATION, "All our executives are busy. Please stay on the line or call back after some time."),
    (NO_CONVERSATION, "आप जिस व्यक्ति से संपर्क करना चाहते हैं वह अभी व्यस्त है। कृपया थोड़ी देर बाद कॉल करें।"),
    (NO_CONVERSATION, "आपने जिस नंबर पर कॉल किया है वह अभी स्विच ऑफ है। कृपया बाद में कॉल करें।"),
    (NO_CONVERSATION, "डायल किया गया नंबर अभी पहुंच से बाहर है। कृपया थोड़ी देर बाद फोन करें।"),
    (NO_CONVERSATION, "Aap jis vyakti se sampark karna chahte hain vah vyast hai. Kripya thodi der baad call karen."),
    (NO_CONVERSATION, "Dial kiya gaya number coverage kshetra se bahar hai, kripya kuch samay baad call kijiye."),
    # The same, as small models mishear it.
    (NO_CONVERSATION, "My person you are calling it busy. Please call again after some time."),
    (NO_CONVERSATION, "The number you have nailed is switched off. Please try again later."),
    (NO_CONVERSATION, "We're sorry, you have reached a number that has been disconnected or is no longer in service."),
    (NO_CONVERSATION, "Please hold the line, the person you are speaking with has put your call on hold."),
    (
        NO_CONVERSATION,
        "The first primer you are calling is not regional at the moment. Please call back after some time.",
    ),
    (NO_CONVERSATION, "The number you have now been out of the camera in your area. Please call later."),
    # People say similar things.
    (CALLBACK, "I am busy. Please call again after some time."),
    (CALLBACK, "Please call after some time."),
    (CALLBACK, "मैं अभी व्यस्त हूँ। थोड़ी देर बाद कॉल करना।"),
    (CALLBACK, "My phone was switched off. Call me tomorrow."),
    (CALLBACK, "The person you are calling for is my husband. He is busy. Call him tomorrow."),
    (WRONG_NUMBER, "There is nobody with that name here, the number you are calling is a wrong number."),
    (CONNECTED, "What is the number you are calling from?"),
    # Past tense, negation, and the customer's own promises ask for nothing.
    (CONNECTED, "You called me back yesterday."),
    (CONNECTED, "I'll call you back tomorrow."),
    (CONNECTED, "No need to call back."),
    (CONNECTED, "I was interested."),
    (CONNECTED, "It's not a wrong number."),
    (CONNECTED, "aapne kal call kiya tha"),
    (CONNECTED, "Are you interested in cricket?"),
    (CONNECTED, "Hello, who is this?"),
]


@pytest.mark.parametrize(("outcome", "said"), SAID)
def test_the_customers_words(outcome: str, said: str) -> None:
    assert classify_outcome((turn("Hello?", "agent"), turn(said))).outcome == outcome


@pytest.mark.parametrize(("outcome", "said"), SAID)
def test_a_mono_recording_is_read_as_a_whole(outcome: str, said: str) -> None:
    assert classify_outcome((turn(said, "unknown"),)).outcome == outcome


def test_the_agents_words_are_not_the_customers() -> None:
    said = (turn("Are you interested? I can call you back tomorrow, or take you off the list.", "agent"), turn("Hm."))
    assert classify_outcome(said).outcome == CONNECTED


def test_an_agents_promise_counts_where_the_customer_leaves_it_open() -> None:
    said = (turn("I am driving."), turn("I will call you tomorrow at ten.", "agent"), turn("Fine."))
    assert classify_outcome(said).outcome == CALLBACK
    refused = (turn("I am not interested."), turn("I will call you tomorrow.", "agent"))
    assert classify_outcome(refused).outcome == NOT_INTERESTED


def test_a_conversation_after_an_announcement_decides() -> None:
    said = (
        turn("The person you are calling is busy. Please stay on the line."),
        turn("Hello, this is Sam.", "agent"),
        turn("Yes, that sounds good, I am interested."),
    )
    assert classify_outcome(said).outcome == INTERESTED


def test_a_hello_to_a_machine_is_no_conversation() -> None:
    hello = turn("Hello? Hello?", "agent")
    busy, again = turn("The person you are calling is busy."), turn("Please call again after some time.")
    assert classify_outcome((busy, hello, again)).outcome == NO_CONVERSATION
    promise = turn("All our agents are busy. We will call you back tomorrow.", "agent")
    assert classify_outcome((promise, turn("Hello?"))).outcome == NO_CONVERSATION


def test_nobody_there() -> None:
    assert classify_outcome(()).outcome == NO_CONVERSATION
    assert classify_outcome((turn("Hello? Hello?", "agent"),)).outcome == NO_CONVERSATION
    on_the_line = (turn("Hello sir, this is Sam.", "agent"), turn("Hello? Hello? Can you hear me?"))
    assert classify_outcome(on_the_line).outcome == NO_CONVERSATION


async def test_the_summary_states_facts() -> None:
    said = (turn("Hello, this is Sam.", "agent", 0, 4), turn("I am busy. Please call me tomorrow.", "customer", 5, 11))
    digest = await LocalSummarizer().digest(said, language="en", duration=12.2)
    assert digest.outcome == CALLBACK
    assert digest.summary == (
        "The customer asked for a call at another time: “I am busy. Please call me tomorrow.” "
        "In a call of 12 s the agent spoke for 4 s and the customer spoke for 6 s. Outcome: Callback requested."
    )
    assert (
        summarize((), OutcomeMatch(NO_CONVERSATION), 8.0) == "The call was answered and lasted 8 s, but nobody spoke."
    )


def test_long_words_are_shortened() -> None:
    summary = summarize((turn("really " * 200),), OutcomeMatch(CONNECTED), 300)
    assert len(summary) < 400
    assert "5 min 0 s" in summary


def test_every_outcome_is_reached() -> None:
    assert {outcome for outcome, _ in SAID} | {NO_CONVERSATION} == set(OUTCOMES)


def test_who_talks_at_length_to_a_side_that_is_not_heard_is_connected() -> None:
    news = "Good morning, I am calling about your order. It leaves our store tomorrow, and the boy comes by noon. " * 2
    said = (turn(news, "agent", 0, 20),)
    found = classify_outcome(said)
    assert found.outcome == CONNECTED
    assert "The customer was not heard." in summarize(said, found, 30)


def test_a_summary_tells_purpose_decision_and_answer() -> None:
    said = (
        turn("Hello sir, we have an offer on water purifiers today.", "agent", 0, 4),
        turn("I am driving. Call me after six.", "customer", 5, 8),
        turn("Sure sir, I will call you after six.", "agent", 9, 12),
    )
    assert summarize(said, classify_outcome(said), 13).startswith(
        "The agent said: “Hello sir, we have an offer on water purifiers today.” The customer asked for a call at "
        "another time: “I am driving. Call me after six.” The agent answered: “Sure sir, I will call you after six.”"
    )
