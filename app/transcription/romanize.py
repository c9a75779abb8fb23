"""Hindi in both scripts as one spelling, and with its commonest words in English.

A classifier then needs no Hindi model: "मुझे नहीं चाहिए", "mujhe nahin chahie" and "muje nahi chahiye" become the same
words. `gloss` replaces about 250 words by English ones, because an English sentence embedding understands those.
"""

import re

# fmt: off
_CONSONANTS = {
    "क": "k", "ख": "kh", "ग": "g", "घ": "gh", "ङ": "n", "च": "ch", "छ": "chh", "ज": "j", "झ": "jh", "ञ": "n",
    "ट": "t", "ठ": "th", "ड": "d", "ढ": "dh", "ण": "n", "त": "t", "थ": "th", "द": "d", "ध": "dh", "न": "n",
    "प": "p", "फ": "ph", "ब": "b", "भ": "bh", "म": "m", "य": "y", "र": "r", "ल": "l", "व": "v", "श": "sh",
    "ष": "sh", "स": "s", "ह": "h",
}
# fmt: on
_LATIN_VOWELS = ("aa", "i", "ee", "u", "oo", "ri", "e", "ai", "o", "au", "o", "e")
_VOWELS = {"अ": "a", **dict(zip("आइईउऊऋएऐओऔऑऍ", _LATIN_VOWELS, strict=True))}
_SIGNS = dict(zip("ािीुूृेैोौॉॅ", _LATIN_VOWELS, strict=True))
_NASAL, _VIRAMA = "ंँ", "्"
_DEVANAGARI = re.compile(r"[\u0900-\u097f]+")
_DIGITS = str.maketrans("०१२३४५६७८९", "0123456789")


def romanize(text: str) -> str:
    """Devanagari words in Latin letters, as people write Hindi in messages. Other words stay."""
    plain = text.translate(_DIGITS).replace("।", ". ").replace("\u200d", "").replace("\u200c", "")
    return _DEVANAGARI.sub(lambda word: _romanize_word(word.group()), plain)


def _romanize_word(word: str) -> str:
    # Pairs of a consonant and its vowel. None: the inherent "a", which may be silent.
    syllables: list[tuple[str, str | None]] = []
    for sign in word:
        if sign in _CONSONANTS:
            syllables.append((_CONSONANTS[sign], None))
        elif sign in _VOWELS:
            syllables.append(("", _VOWELS[sign]))
        elif sign == _VIRAMA and syllables:
            syllables[-1] = (syllables[-1][0], "")
        elif sign in _SIGNS and syllables:
            syllables[-1] = (syllables[-1][0], _SIGNS[sign])
        elif sign in _NASAL and syllables:
            syllables[-1] = (syllables[-1][0], syllables[-1][1] or "a")
            syllables.append(("n", ""))
    written = [consonant + ("a" if vowel is None else vowel) for consonant, vowel in syllables]
    last = len(syllables) - 1
    for place in range(last, 0, -1):
        consonant, vowel = syllables[place]
        # The inherent vowel is silent at the end, and between two syllables that have a vowel of their own.
        sounded = place < last and not (syllables[place + 1][1] and syllables[place - 1][1] != "")
        if vowel is None and not sounded:
            written[place] = consonant
            syllables[place] = (consonant, "")
    return "".join(written)


_SPELLINGS = (
    (re.compile(r"[’']"), ""),
    (re.compile(r"aa+"), "a"),
    (re.compile(r"ee+"), "i"),
    (re.compile(r"oo+"), "u"),
    (re.compile(r"w"), "v"),
    (re.compile(r"z"), "j"),
    (re.compile(r"ph"), "f"),
    (re.compile(r"chh"), "ch"),
    (re.compile(r"([a-z])\1+"), r"\1"),
    (re.compile(r"iy([eao])"), r"i\1"),
)
_TOKENS = re.compile(r"[a-z0-9']+|[^\sa-z0-9]")


def spell(word: str) -> str:
    """A word in one spelling: "nahin", "nahee" and "nahi" differ by habit only."""
    for pattern, replacement in _SPELLINGS:
        word = pattern.sub(replacement, word)
    return word[:-1] if word.endswith(("hin", "hon", "hun")) and len(word) > 3 else word


def words(text: str) -> list[str]:
    """The words of a text in Latin letters, lower case and one spelling each. Punctuation is left out."""
    lowered = romanize(text).lower().replace("’", "'")
    return [spell(token) for token in _TOKENS.findall(lowered) if token[0].isalnum()]


_ENGLISH = {
    spell(hindi): english
    for english, hindis in {
        "not": "nahi nahin na mat",
        "yes": "haan han ji hanji bilkul",
        "want": "chahiye chaiye chahie chahta chahti",
        "need": "zaroorat jarurat zarurat",
        "take": "lena lenge lunga loonga lungi le leni lete leta liya",
        "taken": "liye rakha",
        "give": "dena do de dijiye dedo dijie denge dunga doonga",
        "send": "bhej bhejo bhejiye bhejna bhejie bhejiega",
        "tell": "batao bataiye bata batana bataie batadijiye bolo boliye",
        "say": "bol bolna bolun boloon kaha kahiye kahie",
        "speak": "baat bolie baatein bolte",
        "call": "call phone fone milana lagana",
        "do": "karo karna kar karen kariye kijiye kijie karie karte karta karti kijiyega kariyega karenge kiya",
        "will do": "karunga karungi karoonga karlunga",
        "will tell": "bataunga bataungi",
        "come": "aana aao aaiye aa aate aaye",
        "will come": "aaunga aaungi aayenge jaunga jaungi aaoonga pahunchunga",
        "have": "paas hain",
        "is": "hai he hain ho",
        "am": "hoon hun hu",
        "was": "tha thi the",
        "now": "abhi ab filhaal",
        "later": "baad badme dobara phir fir",
        "tomorrow": "kal",
        "day after tomorrow": "parso parson",
        "today": "aaj",
        "evening": "shaam sham shyam",
        "morning": "subah subha savere",
        "afternoon": "dopahar",
        "night": "raat",
        "hour": "ghante ghanta",
        "minutes": "minat",
        "a little": "thodi thoda zara",
        "while": "der",
        "o'clock": "baje",
        "week": "hafte hafta",
        "month": "mahine mahina",
        "until": "tak",
        "after": "pashchat",
        "already": "pehle pahle",
        "wrong": "galat galt glat rong",
        "number": "nambar nanbar number no",
        "name": "naam",
        "here": "yahan yaha idhar",
        "anybody": "koi kisi",
        "who": "kaun kon",
        "what": "kya",
        "how much": "kitna kitne kitni",
        "price": "daam keemat rate",
        "how": "kaise",
        "when": "kab",
        "why": "kyon kyun",
        "where": "kahan kaha kidhar",
        "expensive": "mehenga mahanga mehnga mehanga",
        "cheap": "sasta",
        "good": "accha acha achha achchha badhiya",
        "okay": "theek thik thikhai tik",
        "leave it": "rehne rahne chhodo chhodiye chhod chodo",
        "remove": "hata hatao hataiye nikal nikaal nikalo",
        "again": "firse wapas vapas",
        "stop": "band bandh",
        "often": "baar bar roz",
        "harassed": "pareshan pareshaan tang",
        "busy": "vyast busy",
        "driving": "chala",
        "car": "gaadi gadi",
        "work": "kaam",
        "home": "ghar makaan",
        "outside": "bahar",
        "sleeping": "so",
        "husband": "pati",
        "wife": "patni biwi",
        "son": "beta",
        "father": "papa pitaji pita",
        "brother": "bhai bhaiya",
        "me": "mujhe mujhko mujh mujhse",
        "I": "main mai mein",
        "my": "mera mere meri",
        "we": "hum ham",
        "us": "humein hume hamein hamen humne",
        "our": "humara hamara hamare hamari",
        "you": "aap aapko tum aapne",
        "your": "aapka aapki aapke",
        "he": "wo woh vo voh unka unko unki",
        "this": "ye yeh is",
        "that": "us usko",
        "money": "paise paisa rupaye",
        "pay": "bhar bharna jama bharunga chukana",
        "instalment": "kist kisht",
        "pending": "baki baaki",
        "understand": "samajh samjh samaj samjha",
        "know": "pata jaanta janta aata aati aat",
        "Hindi": "hindi",
        "English": "angrezi angreji",
        "other": "dusri dusra doosri doosra kahin dusre",
        "think": "soch sochta sochte sochkar sochna",
        "see": "dekh dekhta dekhte dekhna dekho",
        "ask": "pooch puchh poochh poochna puchna",
        "buy": "kharid khareed kharidna khareedna",
        "bought": "kharida karwa karva",
        "happened": "hua hui ho_gaya",
        "went": "gaya gaye gayi gai",
        "bad": "kharab bekar bekaar",
        "time": "samay samai waqt taim",
        "free": "khaali khali",
        "with": "saath",
        "myself": "khud",
        "message": "sandesh",
        "complaint": "shikayat",
        "use": "faayda fayda",
        "interest": "ruchi dilchaspi intrest",
        "house": "dukan",
        "if": "agar",
        "but": "lekin magar par",
        "then": "to toh tab",
        "also": "bhi",
        "two": "dono",
        "thanks": "dhanyavaad dhanyawad shukriya",
        "of": "ka ki ke",
        "to": "ko",
        "from": "se",
        "in": "mein_",
        "and": "aur",
    }.items()
    for hindi in hindis.split()
}
_AMBIGUOUS = {
    "me",
    "to",
    "the",
    "is",
    "us",
    "so",
    "do",
    "he",
    "par",
    "main",
    "ho",
    "no",
    "bar",
    "call",
    "number",
    "fone",
}
"""Also English words. They count as Hindi only where the text has two other Hindi words."""
_EVIDENT = {hindi for hindi in _ENGLISH if hindi not in _AMBIGUOUS and hindi not in _ENGLISH.values()} | {"hai"}


def gloss(text: str) -> str:
    """The text with its Hindi words in English, in their order. English text stays as it is."""
    tokens = _TOKENS.findall(romanize(text).lower().replace("’", "'"))
    spelled = [spell(token) for token in tokens]
    if sum(word in _EVIDENT for word in spelled) < 2:
        known = {word for word in spelled if word in _EVIDENT and len(word) > 3}
    else:
        known = set(_ENGLISH)
    return " ".join(_ENGLISH[word] if word in known else token for token, word in zip(tokens, spelled, strict=True))
