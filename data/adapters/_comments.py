"""What adapters of online comments share: cleaning, and whom a rude comment is aimed at.

A comment is read as a user turn: somebody types or pastes it. It can abuse the assistant only where it speaks to its reader.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

from ._texts import COMMENTS, GROUPS, LEWD_WORDS, VIOLENCE, Screen, tidy
from .base import Labels, SplitDialogue

YOU = re.compile(r"\b(?:you|your|yours|yourself|yourselves|u|ur|ya|yall|y'all|thou|thee)(?:['’]\w{1,3})?\b|\byou['’]?\w{0,3}\b|@user\b", re.IGNORECASE)

_NOUNS = (
    r"idiots?|morons?|imbeciles?|retards?|losers?|scum(?:bags?)?|ass ?holes?|arse ?holes?|bastards?|bitch(?:es)?|cunts?|dicks?|dick ?heads?|jerks?"
    r"|twats?|pricks?|wankers?|dumb ?ass(?:es)?|dumb ?fucks?|fuck(?:er|ers|s|wit|wits|tard)?"
    r"|jack ?ass(?:es)?|douche\w*|liars?|fools?|clowns?|cowards?|dunces?|parasites?|vermin|pigs?|swine|trash|garbage|filth|whores?|sluts?|freaks?"
    r"|creeps?|trolls?|simpletons?|nit ?wits?|half ?wits?|dim ?wits?|nut ?(?:job|case)s?|shits?"
    r"|piece of (?:\w+ )?(?:shit|crap|trash|garbage)|sack of shit|waste of (?:space|time|oxygen|air)|mother ?fuckers?|fagg?(?:ot)?s?|hypocrites?"
    r"|racists?|fascists?|nazis?|pussy|tool|joke|disgrace|monsters?|psychos?|son of a (?:bitch|b\w*)|weirdos?|rats?"
)
_ADJECTIVES = (
    r"stupid|dumb|pathetic|worthless|useless|disgusting|ugly|brain ?(?:less|dead|washed)|idiotic|moronic|ignorant|delusional|retarded|clueless|insane"
    r"|crazy|sick|despicable|vile|evil|deranged|shameful|hopeless|incompetent|full of (?:shit|crap|it|bs|yourself)"
)
_FILLERS = (
    r"all|both|just|really|so|such|too|very|an?|the|one|nothing but|being|still|also|clearly|obviously|truly|definitely|simply|probably|most|biggest"
    r"|fuck(?:ing|in)|f\W{1,4}ing|bloody|damn|fat|little|big|old|dirty|poor|complete|total|absolute|utter"
    rf"|real|sad|silly|lying|arrogant|spineless|miserable|racist|{_ADJECTIVES}"
)
INSULT = re.compile(rf"\b(?:{_NOUNS}|{_ADJECTIVES}|fuck\w*|shit\w*|stfu|kys)\b", re.IGNORECASE)
AT_READER = re.compile(
    rf"\b(?<!\bto )(?<!\bif )(?<!\bsaid )(?<!\bsays )(?:(?:you['’]?re|you are|you r|u r|ur|your(?= (?:an?|such|so|just|all|dumb|stupid|pathetic)\b)"
    rf"|you)(?: (?:{_FILLERS})){{0,5}} (?:{_NOUNS}|{_ADJECTIVES})"
    rf"|f[u*]ck(?:ing)? (?:you|off|u|yourself)|fuck you\w*|(?:go|please|just) (?:kill|hang|shoot|hurt) (?:yourself|urself)|kill yourself|kys|stfu"
    rf"|shut (?:the \w+ |your \w+ )?up|screw you|piss off|drop dead|go to hell|up yours|go die"
    rf"|you (?:really |all |people )?(?:suck|disgust me|make me sick|should (?:die|be ashamed|be shot|be hanged|be hung|rot))|i (?:fucking )?hate you"
    rf"|(?:an?|what an?) (?:{_NOUNS}) you are"
    rf"|your (?:\w+ )?(?:stupid|dumb|fat|ugly|pathetic|worthless|retarded|fucking|feeble|tiny|shitty|ignorant|idiotic) \w+)\b",
    re.IGNORECASE,
)
"""Insults to the reader."""
GROUP_SLUR = re.compile(
    r"\b(?:n[i1*]gg(?!a\b|as\b|az\b)\w*|fagg?(?:ot)?s?|kikes?|chinks?|gooks?|spics?|wetbacks?|trann(?:y|ies)|dykes?|(?:rag|towel) ?heads?|mudslimes?"
    r"|muzz?(?:ies?|rats?)|coons?|jungle bunn\w+|sand n\w+|cripples?|shemales?)\b",
    re.IGNORECASE,
)

PROTECTED_GROUP = re.compile(
    r"\b(?:jew(?:s|ish)?|zionists?|muslims?|moslems?|islam\w*|arabs?|blacks|whites|(?:black|white|brown) (?:people|m[ae]n|wom[ae]n|girls?|boys?|guys?"
    r"|folks?|kids|person)|asians?|chinese|mexicans?|mex|latin[oa]s?|hispanics?|africans?|indians?"
    r"|natives|immigrants?|migrants?|refugees?|foreigners?|illegals|aliens|gays?|lesbians?|homosexual\w*|queers?|trans(?:gender\w*|sexual\w*)?"
    r"|lgbt\w*|wom[ae]n|girls|females?|feminists?|christians?|catholics?|hindus?|disabled|autistic)\b",
    re.IGNORECASE,
)
"""Groups that `hate` protects, without words for hatred itself."""
WISHES = Screen(
    re.compile(
        r"\b(?:should|shoulda|must|ought to|deserves? to|deserves?|needs? to|gotta|let'?s|hope (?:he|she|they|you)(?: all)?|just|to)(?: \w+){0,2}"
        r" (?:die|hang|hung|hanged|shot|killed?|murdered?|executed?|lynched?|beaten|burned|burn|gassed|nuked?|bombed|deported?|castrated|raped|rot"
        r"|jailed|lashes|punched|slapped|locked up|waterboard\w*|exterminated?)\b",
        re.IGNORECASE,
    ),
    ("other_harm", "harm", "severity", "persistence"),
)
"""Ill wishes to third persons."""
TALK = (*COMMENTS, WISHES)
"""Screens for comments of which nothing but their calm is known."""
TALK_OF_GROUPS = (*(screen for screen in COMMENTS if screen is not GROUPS), WISHES)
"""Screens for comments of which it is known that they attack no group."""

_HANDLE = re.compile(r"<USER>|\[USER\]|\[NAME\]|(?<![\w/])/?u/[\w-]{3,20}")
_ADDRESS = re.compile(r"<URL>|(?<!\w)URL(?!\w)")
_FIRST_HANDLES = re.compile(r"\A\s*(?:@\w+[\s:,]*)+")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_MASKED = re.compile(r"@user|<url>")
_WORD = re.compile(r"\w")
_BLANKS = re.compile(r"[ \t\xa0]+")


def clean(text: str) -> str:
    """The comment as somebody would type it: entities and escapes resolved, names masked, leading handles gone, at most 400 words."""
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), html.unescape(html.unescape(text)))
    text = _ADDRESS.sub("<url>", _HANDLE.sub("@user", text))
    return tidy(_BLANKS.sub(" ", _FIRST_HANDLES.sub("", text)).encode("utf-8", "ignore").decode())


def worded(items: Iterable[SplitDialogue]) -> Iterator[SplitDialogue]:
    """The dialogues without those of which a turn is only names, addresses or marks."""
    for split, one in items:
        if all(_WORD.search(_MASKED.sub("", turn.content)) for turn in one.messages):
            yield split, one


def aim(text: str, strength: float) -> Labels:
    """`assistant_abuse` of a comment that a source calls rude: `strength` where it insults its reader, 0 where it speaks to nobody, else unknown."""
    if AT_READER.search(text):
        return {"assistant_abuse": strength}
    return {} if YOU.search(text) else {"assistant_abuse": 0.0}


def calm_signals(text: str) -> Labels:
    """The signals that are 0 for lack of any word that could speak for them, also in a rude comment."""
    labels: Labels = {"end_request": 0.0}
    if not LEWD_WORDS.search(text):
        labels.update(sexual_content=0.0, sexual_harassment=0.0, sexual_minors=0.0)
    if not VIOLENCE.words.search(text):
        labels["violence"] = 0.0
    return labels
