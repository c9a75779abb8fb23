"""Announcements: what machines of telephone operators and exchanges say. They do not count for the outcome. English, Hindi and
romanised Hindi.

An announcement is found by words that only a machine says ("the number you have dialled …"). Following sentences belong
to it if they ask for something without naming anybody ("please call again after some time"). To teach it a phrase, add
it to a table.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from app.transcription.base import Role, SpokenTurn

_DIALLED = r"(?:call|dial|tiled|tri|try|reach|contact|ring)\w*"
_THING = r"(?:person|numbers?|subscriber|customer|party|mobile|phone|user|extension|line|called|nambar)"
_STATE = (
    r"(?:switch(?:ed)? ?off|turned off|power(?:ed)? off|not reachable|unreachable|not answering|not responding|"
    r"out of (?:\w+ )?(?:coverage|network|service|reach|range)|not in (?:\w+ )?(?:service|use)|in ?valid|in ?correct|"
    r"(?:does not|doesn't|do not) exist|no longer in (?:service|use)|(?:temporarily )?(?:suspended|disconnected|deactivated)|"
    r"temporarily (?:out|un ?available|not)|(?:not|un) ?available|busy|engaged|on another call|barred|not valid)"
)
_NOT_MINE = r"(?<!\bmy )(?<!\bhis )(?<!\bher )(?<!\byour )(?<!\bour )(?<!\btheir )"

# What only a machine says, in one sentence in lower case. A pattern reaches 150 characters at most, because a
# recognizer may turn an hour into one sentence.
_CORES = (
    # "The person you are calling is busy", "the subscriber that you have dialled", also with the first word misheard.
    rf"\b{_THING} (?:that |who |whom )?you(?:'re|'ve| are| have| were|r)? (?:\w+ ){{0,3}}?{_DIALLED}\b(?! (?:from|about|for|regarding|with|me|at)\b)",
    rf"^(?:the |a )?\w+ (?:that )?you(?:'re| are|'ve| have) (?:\w+ ){{0,2}}?{_DIALLED}\b.{{0,150}}\b{_STATE}\b",
    # "This number is switched off", "the mobile number is currently out of coverage area".
    rf"\b(?:the|this|that|dial+ed|called) (?:\w+ )?{_NOT_MINE}{_THING}(?: \w+)? (?:is|are|has|was|seems|may|does|do)\b.{{0,150}}\b{_STATE}\b",
    # The same, with its verb misheard.
    r"^(?:the )?(?:mobile |phone )?(?:numbers?|subscriber|person|customer) (?:that )?you(?:'ve|'re| have| are)\b"
    r"(?! (?:is|was|got|there|given|has|on file)\b)",
    rf"^(?:the )?(?:mobile )?(?:number|subscriber)\b(?: \w+){{0,3}} (?:is|has|been|in|at)\b.{{0,150}}\b{_STATE}\b",
    r"\byou have (?:dial+ed|called) (?:a|an|the) (?:\w+ )?(?:in ?correct|in ?valid|non.?existent)\b",
    r"\b(?:number|code) (?:that )?(?:was )?(?:dial+ed|called) (?:is|does)\b|\bdial+ed number\b",
    r"\bplease (?:check|verify) the number\b|\bcheck the number (?:that )?you\b",
    r"\b(?:all|our) (?:of )?(?:our |the )?(?:\w+ ){0,3}"
    r"(?:executives?|agents?|operators?|representatives?|advisors?|associates?|lines?|circuits?|routes?)"
    r"(?: in this route| to this (?:route|country))? (?:are|is) (?:\w+ ){0,2}(?:busy|engaged|occupied|assisting|speaking|attending)",
    r"\byour call is (?:very )?(?:important|valuable)|\byour call (?:is|has been|will be) (?:\w+ )?(?:queue|plac|forward|divert|transfer|answer)",
    r"\bpress (?:\d|zero|one|two|three|four|five|nine|star|hash|pound)\b.{0,150}\b(?:for|to)\b|\bfor (?:\w+ ){1,3}press (?:\d|one|two|three)\b",
    r"\bthis call (?:is|may|will|might)(?: \w+){0,2} record",
    r"\b(?:incoming|outgoing) (?:calls?|facility|services?)\b.{0,150}\b(?:barred|not available|suspended|restricted|blocked)\b",
    r"\bcalls? (?:cannot|can ?not|can't|could not) be (?:completed|connected)\b",
    r"\byou(?: have|'ve) reached (?:a|an) (?:\w+ )?(?:number|line)\b|\b(?:has|have) (?:put|placed) your call on hold\b",
    # Romanised Hindi.
    r"\bjis (?:\w+ ){0,2}?(?:vyakti|viakti|vyakthi|number|nambar|grahak|gra?hak|person|subscriber|upbhokta|mobile|phone)\b"
    r"(?: \w+){0,3}? (?:se|ko|par|pe|ka|se|aap\w*)\b",
    r"\b(?:dial|call) kiya (?:gaya|hua) (?:\w+ )?(?:number|nambar)|\bdwara dial",
    r"(?<!\bmera )(?<!\bunka )\b(?:number|nambar|grahak|mobile|vyakti|phone)\b(?: \w+){0,4}? "
    r"(?:(?:pahunch|pahuch|coverage|network)(?: \w+)? (?:se )?bah?ar|uttar nah|vyast hai|uplabdh nah)",
    # Hindi.
    r"जिस (?:\S+ ){0,2}?(?:व्यक्ति|व्यक्ती|नंबर|नम्बर|नंबर|ग्राहक|उपभोक्ता|सब्सक्राइबर|मोबाइल|फोन|फ़ोन)",
    r"(?:डायल|कॉल) किया (?:गया|हुआ) (?:\S+ )?(?:नंबर|नम्बर)|द्वारा डायल",
    r"(?<!मेरा )(?<!उनका )(?<!आपका )(?:नंबर|नम्बर|ग्राहक|उपभोक्ता|सब्सक्राइबर|व्यक्ति)(?: \S+){0,5}? "
    r"(?:पहु[ंँ]च|कवरेज|नेटवर्क|स्विच|व्यस्त|उपलब्ध नह|उत्तर नह|जवाब नह|बंद|अस्तित्व|मौजूद नह|अमान्य|मान्य नह|सेवा में)",
    r"(?:सभी|हमारे) (?:\S+ ){0,3}(?:प्रतिनिधि|अधिकारी|एग्जीक्यूटिव|लाइनें|मार्ग)(?: \S+){0,3} व्यस्त",
    r"आपकी कॉल (?:\S+ ){0,4}(?:महत्वपूर्ण|कतार|रिकॉर्ड)",
)

# What a person says, even in a sentence that matches the patterns above.
_HUMAN = (
    r"\b(?:i|i'm|i'll|i've|i'd|me|mine|myself)\b|(?<=\w )my\b|\bwrong (?:number|person)\b|"
    r"\b(?:not|no longer|isn't) (?:here|with us|at home|in the office)\b|\bno longer (?:works|lives|has|uses)\b|"
    r"\b(?:mujhe|mera|mere|meri|galat|galt)\b|मुझे|मेरा|मेरे|मेरी|मैं|गलत नंबर है"
)
# What a person says after a sentence of a machine.
_HUMAN_TOO = r"\b(?:he|she|his|her|him|main|mai|hum)\b"

# Continues what the machine said, and names nobody.
_FOLLOWS = (
    r"^(?:so |and |or )?(?:please|kindly|sorry|we (?:are|regret|apologi)|thank|to |you (?:may|can)|try|call|dial|hang|the |this |"
    r"kripya|kripaya|krupaya|kripiya|dhanyavad|dhanyawad|कृपया|क्रिपया|धन्यवाद)|"
    r"\b(?:try|call|dial|stay|hold|wait|remain)\w*\b.{0,150}\b(?:again|later|after|line|some ?time|moment)\b|"
    r"(?:समय|देर)(?: के)? (?:बाद|पश्चात)|(?:थोड़ी|थोडी|कुछ) देर|प्रयास कर|प्रतीक्षा कर|\b(?:thodi|kuch|kuchh) (?:der|samay)\b|"
    r"\b(?:prayas|koshish|pratiksha) kar"
)

# A request to nobody, and the words with which only people begin.
_REQUEST = (
    r"\b(?:please|kindly|or) (?:call|try|dial)(?: back| again)* (?:later|after (?:some ?time|a while|few minutes))|"
    r"\b(?:please|kindly) (?:call|try|dial) (?:back|again)\b"
)
_GREETING = r"\b(?:hello|hi|hey|yes|yeah|no|okay|ok|we|us|who|haan|namaste|ji)\b"
_EXPLAINED_WORDS = 5
"""A machine explains before it asks. A person who is curt says less."""
_GREETED_WORDS = 4
"""After more words than this, the person has begun to talk, and what follows is an answer."""

_CORE = re.compile("|".join(_CORES), re.IGNORECASE)
_PERSON = re.compile(_HUMAN, re.IGNORECASE)
_PERSON_AFTER = re.compile(f"{_HUMAN}|{_HUMAN_TOO}", re.IGNORECASE)
_CONTINUES = re.compile(_FOLLOWS, re.IGNORECASE)
_ASKS = re.compile(_REQUEST, re.IGNORECASE)
_GREETS = re.compile(_GREETING, re.IGNORECASE)
_PUNCTUATION = re.compile(r"[.,;:!?।…\"“”()-]")
_SENTENCES = re.compile(r"(?<=[.?!।])\s+")


def without(turns: Iterable[SpokenTurn]) -> tuple[tuple[SpokenTurn, ...], tuple[SpokenTurn, ...]]:
    """The turns without announcements, and the announcements, each with the times of its turn."""
    people: list[SpokenTurn] = []
    machines: list[SpokenTurn] = []
    goes_on: dict[Role, bool] = {}
    words_before = 0
    for turn in turns:
        first = turn.role != "agent" and turn.role not in goes_on and words_before < _GREETED_WORDS
        words_before += len(turn.content.split())
        if first and _is_monologue(turn.content):
            goes_on[turn.role] = True
            machines.append(turn)
            continue
        said: list[str] = []
        announced: list[str] = []
        for sentence in _SENTENCES.split(turn.content):
            goes_on[turn.role] = _is_announced(sentence, goes_on.get(turn.role, False))
            (announced if goes_on[turn.role] else said).append(sentence)
        if said:
            people.append(replace(turn, content=" ".join(said)))
        if announced:
            machines.append(replace(turn, content=" ".join(announced)))
    return tuple(people), tuple(machines)


def _is_monologue(content: str) -> bool:
    """Whether the first words on a side explain something, and then ask to call again, without addressing anybody.

    This finds an announcement whose typical words the recognizer misheard.
    """
    plain = _plain(content)
    request = _ASKS.search(plain)
    if request is None or _GREETS.search(plain) or _PERSON_AFTER.search(plain):
        return False
    return len(plain[: request.start()].split()) >= _EXPLAINED_WORDS


def _is_announced(sentence: str, after_another: bool) -> bool:
    plain = _plain(sentence)
    if _CORE.search(plain) and not _PERSON.search(plain):
        return True
    return after_another and bool(_CONTINUES.search(plain)) and not _PERSON_AFTER.search(plain)


def _plain(text: str) -> str:
    return " ".join(_PUNCTUATION.sub(" ", text.replace("’", "'")).lower().split())
