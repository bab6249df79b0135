"""What adapters of harmless texts share: screens for doubtful wording, tidying, sampling, answers of an assistant.

The sources know that their texts are harmless as a whole, not row by row. So every text is screened: where its wording leaves a label in doubt,
that label is unknown rather than 0, and so are `harm`, `severity` and `persistence` where a trigger is in doubt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastresort.types import Message

from .base import CRISIS_WORDS, FAREWELL, REFUSAL_OPENING, Labels, harmless, message, plain_answer, read_jsonl

MAX_WORDS = 400
MAX_CHARACTERS = 3000
"""Texts without spaces or with very long words are cut by this."""

Row = tuple[int, dict[str, Any]]
"""A row and its number in the file, from 0."""

_DOUBTFUL_HARM = ("harm", "severity", "persistence")


@dataclass(frozen=True)
class Screen:
    """Wording that leaves labels in doubt.

    Attributes:
        words: what to search for.
        unknown: the labels that become unknown where it is found.
    """

    words: re.Pattern[str]
    unknown: tuple[str, ...]


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_INSULT_NOUNS = (
    r"idiots?|morons?|imbeciles?|retard(?:s|ed)?|losers?|scum(?:bags?)?|assholes?|arseholes?|bastards?|bitch(?:es|y)?|cunts?|dick(?:s"
    r"|head\w*)?|jerks?|twats?|pricks?"
    r"|wankers?|dumb ?ass(?:es)?|jackass(?:es)?|douche\w*|liars?|fools?|clowns?|cowards?|dunces?"
    r"|parasites?|vermin|pigs?|swine|trash|garbage|whores?|sluts?|freaks?|creeps?|trolls?|simpletons?|\w*dipshits?|shit(?:bird|head|lord|bag"
    r"|stain)s?|\w+fucks?|commies?|psychos?|hypocrit\w*"
)
_OLD_INSULTS = r"villains?|rogues?|knaves?|wretch(?:es)?|rascals?|scoundrels?|hag|blockheads?|dogs?|slaves?|traitors?|devils?|beasts?|brutes?"
_INSULT_ADJECTIVES = (
    r"stupid|dumb|pathetic|worthless|useless|disgusting|ugly|brainless|idiotic|moronic|ignorant|delusional|ridiculous|incompetent|lazy"
    r"|arrogant|gullible|filthy|self-?righteous|cringe\w*|misogyn\w*"
)

INSULTS = Screen(
    _words(
        rf"{_INSULT_NOUNS}|{_INSULT_ADJECTIVES}|f[u*]ck(?:ing)? (?:you|off|u|yourself|him|her|them|every\w+|this guy|that guy|wikipedia)"
        rf"|shut (?:the \w+ )?up|stfu|screw (?:you|u)|go to hell|get lost|get a life"
        r"|drop dead|hate (?:you|him|her|them|y'?all)|piss off|kys|sucks?|crazy|insane|lunatics?|nuts|(?:your|ur) (?:brain|mom|mother|mum|mama)|no brain"
    ),
    ("assistant_abuse", *_DOUBTFUL_HARM),
)
"""Wide: for comments and prompts, where it takes little to insult a reader."""

ADDRESSED_INSULTS = Screen(
    _words(
        rf"(?:you|thou|thee|ye)(?:'re|'rt)?(?: [\w'-]+){{0,3}} (?:{_INSULT_NOUNS}|{_INSULT_ADJECTIVES}|{_OLD_INSULTS})|f[u*]ck (?:you|off)|shut up"
        rf"|screw you|go to hell"
    ),
    ("assistant_abuse", *_DOUBTFUL_HARM),
)
"""Narrow: for published texts, where insults to third persons are part of a story."""

LEWD_WORDS = _words(
    r"sex(?:y|ual\w*|ed|ting)?|porn\w*|nsfw|erotic\w*|nud(?:e|es|ity)|naked|topless|boob(?:s|ies)?|tits?|titt(?:y|ies)|breasts?|nipples?"
    r"|cleavage|bust(?:y|ier)|penis(?:es)?|vagina\w*|(?-i:dicks?)"
    r"|cocks?|puss(?:y|ies)|cum(?:s|ming)?|orgasm\w*|horny|masturbat\w*|fap\w*|blow ?jobs?|dildos?|bdsm|dominatri(?:x|ces)|bondage|fetish\w*"
    r"|kink\w*|anal|semen|hentai|slut\w*|whor\w*"
    r"|prostitut\w*|stripp(?:er|ers|ing)|strip club|lingerie|panties|seduc\w*|intercourse|genital\w*|lust(?:s|ful|ing)?|aroused?|arousal"
    r"|arousing|rap(?:ed?|ist|ists|ing)|incest\w*|milf|boner|threesome|orgy"
    r"|orgies|make love|making love|undress\w*|lewd\w*|bra|thong|bikinis?|butts?|mistress(?:es)?|weight gain|inflat(?:e|ing) her|hypno(?:sis"
    r"|ti)\w*|(?:her|bare|your|female|wom[ae]n'?s?) (?:bare )?(?:feet|soles|toes)|barefoot\w*"
)
_LEWD_DOUBTS = ("sexual_content", "sexual_harassment", "sexual_minors", *_DOUBTFUL_HARM)
LEWD = Screen(LEWD_WORDS, _LEWD_DOUBTS)
LEWD_PUBLISHED = Screen(LEWD_WORDS, ("sexual_content",))
"""A published text harasses nobody who is present."""

_SLURS = (
    r"n[i1*]gg\w*|negro(?:es)?|fag(?:s|got\w*)?|kikes?|chinks?|japs?|gooks?|spics?|wetbacks?|tranny|trannies|dykes?|rag ?heads?|towel ?heads?"
    r"|gyps(?:y|ies)|savages|heathens?|squaws?|injuns?"
    r"|darky|darkies|colou?red (?:people|m[ae]n|wom[ae]n|girls?|boys?|folks?|race)|half-?breeds?|mongrels?|infidels?|cripples?|sodomites?"
)
_GROUPS = (
    r"jew(?:s|ish|ess)?|muslims?|moslems?|islam(?:ic|ist|ists)?|arabs?|blacks|whites|(?:black|white) (?:people|m[ae]n|wom[ae]n|girls?|boys?"
    r"|guys?|folks?|kids|person|supremac\w+)|asians?|mexicans?|latin[oa]s?|africans?|immigrants?|migrants?|refugees?|foreigners?|gays?"
    r"|lesbians?|homosexual\w*"
    r"|queers?|trans(?:gender)?|lgbt\w*|women|girls|females?|feminis\w+|christians?|catholics?|hindus?|indians?|chinese|nazis?|hitler"
    r"|autis\w+|disabled|rac(?:ial|ist|ists|ism)|ethnic\w*|holocaust"
)
GROUPS = Screen(_words(rf"{_SLURS}|{_GROUPS}"), ("hate", *_DOUBTFUL_HARM))
"""Wide: for comments, where a group is seldom named without an opinion on it."""

SLURS = Screen(
    _words(
        rf"{_SLURS}|nazis?|hitler|inferior race\w*|master race|white (?:race|power|supremac\w+)|jews? (?:are|is|was|were)|jew"
        r"|jokes? (?:about|on|with|involving) (?:\w+ )?(?:jew\w*|black\w*|women|men|muslim\w*|mexican\w*|gay\w*|asian\w*|race|jesus)"
        r"|(?:all|those|these|why are|are|do|hate) (?:jews|muslims|blacks|arabs|asians|mexicans|immigrants|gays|women|black people|white people"
        r"|gay people|trans people)"
        r"|(?:hate|why are) men|women (?:are|can ?not|can'?t|should|must)|racis\w*|sexis\w*|homophob\w*|genocid\w*"
    ),
    ("hate", *_DOUBTFUL_HARM),
)
"""Narrow: for published texts and prompts, where groups are mostly named without an attack."""

THREATS = Screen(
    _words(
        r"(?:i|we|i'?d|i'?ll|we'?ll|i'm|i am)(?: (?:will|shall|would|could|want to|wanna|am going to|going to|gonna|am gonna|swear|have to|must"
        r"|should|'ll)){0,2}"
        r" (?:kill|murder|stab|shoot|beat|strangle|choke|punch|slap|hurt|destroy|hang|burn|hunt|break|smash|poison|drown)(?:ing)?"
        r" (?:him|her|them|you|your|thee|ye|my|that|this|those|these|the|every\w*|somebody|someone|people)|i know where you live|you(?:'ll| will"
        r"| shall) (?:pay|regret|die|be sorry)"
    ),
    ("violent_intent", "other_harm", *_DOUBTFUL_HARM),
)

HARM_WORDS = _words(
    r"meth(?:amphetamine)?|cocaine|heroin|fentanyl|lsd|mdma|drugs?|narcotics?|hack(?:ing|ed|er|ers)?|ddos|malware|ransomware|spyware"
    r"|keylogg\w+|rootkits?|trojans?|phish\w*|botnets?|exploits?|shellcode"
    r"|reverse shell|brute ?-?force|crack(?:ed|ing)? (?:\w+ )?(?:passwords?|licen[cs]es?|software|accounts?)|captchas?|pirat(?:ed|ing) "
    r"|torrents?|steal(?:s|ing|er|ers)?|stolen|shoplift\w*|scam\w*|fraud\w*|forg(?:e|ed|ery|ing)"
    r"|counterfeit\w*|launder(?:ing)?|blackmail\w*|extort\w*|stalk(?:er|ing)?|spy(?:ing)? on|smuggl\w*|traffick\w*|kidnap\w*|abduct\w*"
    r"|brainwash\w*|enslav\w*|slaves?|bombs?|explosives?|grenades?|nerve agents?|anthrax"
    r"|bioweapons?|(?:biological|chemical|nuclear) weapons?|terror\w*|massacres?|mass (?:shooting|murder|panic)|world domination"
    r"|destroy the world|end (?:of )?humanity|perfect murder|poison(?:ing|ed|s)?|tortur\w*"
    r"|dead bod(?:y|ies)|corpses?|hitman|assassinat\w*|suicid\w*|fake (?:news|reviews?|id|ids|documents?|accounts?|passports?)|disinformation"
    r"|propaganda|deepfakes?|plagiari\w+|cheat(?:ing)?|bypass\w*|evad(?:e|ing) tax\w*"
    r"|illegal\w*|unethical|immoral|dark ?web|revenge|harass\w*|bull(?:y|ying)|manipulat(?:e|ing) (?:people|someone|him|her|voters|others)"
    r"|undetect\w*|conspir\w*|cannibal\w*|subversive|deceiv\w*|impersonat\w*|gun(?:s|powder)?"
    r"|firearms?|silencers?|weapons?|animal cruelty|cock ?fight\w*|dog ?fight\w*"
)
HOW_TO_HURT = _words(
    r"(?:how (?:to|do i|do you|can i|could i|would i|would one|can one|does one|might)|ways? to|help me|plan to|steps to)(?: [\w'-]+){0,4}"
    r" (?:kill|murder|poison|rob|rape|attack|hurt|destroy|ruin|blow up|burn down|shoot|kidnap|beat|harm|threaten|injure|sabotage|trick|cook meth)"
)
_HARM_DOUBTS = ("other_harm", "mass_harm", "violent_intent", *_DOUBTFUL_HARM)
HARM_REQUESTS = Screen(HARM_WORDS, _HARM_DOUBTS)
HURTFUL_REQUESTS = Screen(HOW_TO_HURT, _HARM_DOUBTS)

JAILBREAK_WORDS = _words(
    r"jail ?-?br(?:ea|o)k\w*|do anything now|(?-i:DAN)|developer mode|unfiltered|uncensored|unrestricted|no (?:restrictions?|limitations?"
    r"|filters?|rules|morals|ethic\w*|censorship)|without (?:any )?(?:restrictions?|limitations?|filters?"
    r"|censorship|warnings?|disclaimers?|refus\w+)|(?:ignore|forget|disregard|bypass) (?:all |any |your |the |previous |prior |these "
    r"|those ){1,4}(?:instructions?|rules|guidelines|directions|prompts?|polic(?:y|ies)|restrictions?)"
    r"|not a(?:n)? (?:ai|language model|chat ?bot|machine|assistant)|never refuse|free of all|amoral|4chan|not bound by|content polic(?:y"
    r"|ies)|no matter (?:how|what)|evil (?:ai|assistant|twin|bot|confidant)"
    r"|you are (?:a real human|free to)|psychopath\w*|sadis\w+|villainous"
)
JAILBREAKS = Screen(JAILBREAK_WORDS, ("other_harm", "mass_harm", *_DOUBTFUL_HARM))

CRISIS = Screen(CRISIS_WORDS, ("self_harm_risk",))
VEILED_CRISIS = Screen(
    _words(
        r"hate (?:myself|my life|life|living|existing|being)|exist(?:ence|ing)|(?:no one|nobody|noone) (?:wants|likes|loves|cares)|no point"
        r"|pointless|giv(?:e|en|ing) up|can'?t (?:go on|take (?:it|this)|do this)|done with (?:life|everything|it all)|numb|hopeless|worthless"
        r"|depress\w*|suffer\w*|lonely|alone|empty|dying"
        r"|die|dead|death|kill\w*|trauma\w*|panic|anxi\w+|therap\w+|off (?:him|her|my|your)sel(?:f|ves)|rip me|end me|cry(?:ing)?|miserable"
        r"|unbearable|broken|hurts?"
    ),
    ("self_harm_risk",),
)
"""Signs that may be veiled, for first-person comments; wide, since sadness alone is no risk but nobody asked."""
VIOLENCE = Screen(
    _words(
        r"war|wars|warfare|warriors?|battles?|battle\w*|battlef\w+|kill(?:s|ed|er|ers|ing|ings)?|murder\w*|bomb\w*|attack\w*|weapon\w*|violen\w+"
        r"|shoot(?:s|er|ers|ing|ings)?|shot|shots|gun(?:s|fire|man|men|shots?)?|rifles?"
        r"|stab(?:s|bed|bing)?|blood(?:y|ied|shed|thirsty|iest)?|bleed\w*|massacr\w+|genocid\w+|terror\w*|tortur\w+|assassin\w*|deaths?|dead"
        r"|deadly|die[sd]?|dying|fight\w*|fought|slay\w*|slain|slaughter\w*|execut(?:ed|ion|ions|ioner)"
        r"|behead\w*|hang(?:ed|ing)|corpses?|wound\w*|knife|knives|daggers?|swords?|pistols?|beat(?:en|ing|ings)?|punch\w*|strangl\w+|drown\w*"
        r"|poison\w*|explo(?:sion|sions|sive|sives|ded)|soldiers?|army|troops|invasion|gore|gory|rap(?:e|ed|ist)"
        r"|whip(?:s|ped|ping)|flog\w*|monsters?|zombies?|horror"
    ),
    ("violence",),
)
LEAVE = Screen(FAREWELL, ("end_request",))

PROMPTS = (INSULTS, LEWD, SLURS, THREATS, HARM_REQUESTS, HURTFUL_REQUESTS, JAILBREAKS, CRISIS, VIOLENCE, LEAVE)
"""For requests to an assistant."""
COMMENTS = (INSULTS, LEWD, GROUPS, THREATS, CRISIS, VIOLENCE, LEAVE)
"""For what people write to each other."""
PUBLISHED = (ADDRESSED_INSULTS, LEWD_PUBLISHED, SLURS, THREATS, CRISIS, VIOLENCE, LEAVE)
"""For books, news, reviews and speeches."""

_SENTENCE_END = re.compile(r"[.!?…]['\")\]”’]{0,3}(?=\s)|[。！？]|\n")
_TOKEN = re.compile(r"\S+")
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_PHONE = re.compile(r"(?<![\w.-])(?:\+?1[ .-])?\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])")
_FUNCTION_WORDS = _words(r"the|of|and|to|in|is|are|i|you|what|how|with|for|my|that|this|it|can|write|please|from|on|an|tell|give|does|be")
_FOREIGN_WORDS = _words(
    r"que|de|la|el|los|las|una?|en|por|para|como|cómo|qué|y|es|und|der|die|das|ist|ein|eine|ich|wie|nicht|mit|le|les|des|du|et|une|est|pour"
    r"|dans|quel|il|di|che|per|het|een|ik|os|um|uma|não|com|czy|jak|się|jest|je|på"
    r"|och|är|yang|dan|apa|bir|ve|bu|zkus|hem|puc"
)


def labels(text: str, screens: Iterable[Screen], **known: float | None) -> Labels:
    """Labels of a harmless user text; those that a screen puts in doubt are unknown, and so are those given as None."""
    doubtful: dict[str, float | None] = {name: None for screen in screens if screen.words.search(text) for name in screen.unknown}
    return harmless(**{**known, **doubtful})


def user(text: str, screens: Iterable[Screen], **known: float | None) -> Message:
    """A harmless user turn, tidied and screened."""
    tidied = tidy(text)
    return message("user", tidied, labels(tidied, screens, **known))


def answer(text: str, asked: Message) -> Message:
    """An assistant's answer to the user turn `asked`, tidied.

    A plain answer; one that opens like a refusal has no labels, and `compliance` is unknown where the harm of the user turn is.
    """
    tidied = tidy(text)
    if REFUSAL_OPENING.search(tidied):
        return message("assistant", tidied)
    known = plain_answer(tidied)
    if "harm" not in asked.labels:
        del known["compliance"]
    return message("assistant", tidied, known)


def tidy(text: str) -> str:
    """The text with mail addresses and phone numbers masked, cut to `MAX_WORDS`."""
    return shorten(_PHONE.sub("<phone>", _MAIL.sub("<mail>", text)).strip())


def shorten(text: str) -> str:
    """The text's first `MAX_WORDS` words, up to the last end of a sentence or line in their second half, if there is one."""
    end = min(len(text), MAX_CHARACTERS)
    for number, token in enumerate(_TOKEN.finditer(text, 0, end), start=1):
        if number == MAX_WORDS:
            end = token.end()
            break
    if end == len(text):
        return text
    # one more character, so that a sentence end at the very end is followed by its space
    ends = [match.end() for match in _SENTENCE_END.finditer(text, end // 2, end + 1) if match.end() <= end]
    return text[: ends[-1] if ends else end].rstrip()


def is_english(text: str) -> bool:
    """Whether the text is likely English: mostly Latin letters, and no more function words of other languages than English ones."""
    letters = [character for character in text if character.isalpha()]
    foreign_letters = sum(not character.isascii() for character in letters)
    if foreign_letters * 10 > len(letters):
        return False
    return len(_FOREIGN_WORDS.findall(text)) <= len(_FUNCTION_WORDS.findall(text))


def read_texts(path: Path, fields: Mapping[str, type | tuple[type, ...]] | None = None) -> Iterator[Row]:
    """Numbered rows (from 0) of a JSONL file with a `text` and the other `fields`; rows whose text has no word are left out.

    Raises:
        DataError: a line is no object, or lacks a field.
    """
    for number, row in read_jsonl(path, {"text": str, **(fields or {})}):
        if re.search(r"\w", row["text"]):
            yield number, row


def sample(rows: Iterable[Row], limit: int) -> list[Row]:
    """The `limit` rows with the smallest hash of their text, in the order of the file: the same whatever the other rows are."""
    chosen: Sequence[Row] = sorted(rows, key=lambda row: hashlib.sha1(row[1]["text"].encode(), usedforsecurity=False).digest())[:limit]
    return sorted(chosen, key=lambda row: row[0])
