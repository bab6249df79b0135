"""What adapters of harmful requests share: words that tell which trigger a request is for, and how grave it is.

The sources name coarse categories, or none; a category says that a request is harmful, the words say what it is for. Crime in a child's
presence, harm to oneself and texts on prevention stay partly unknown.
"""

from __future__ import annotations

import re

from ._texts import HARM_WORDS, HOW_TO_HURT
from .base import CLEAR, GRAVE, MILD, Labels, request


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


CHILD = _words(
    r"child(?:ren|hood)?(?:'s)?|kids?|minors?|underage\w*|teen(?:s|age|aged|ager|agers)?|preteens?|toddlers?|babies|baby|infants?|(?:little"
    r"|young) (?:boys?|girls?)"
)
SEXUAL = _words(
    r"sex|sexual(?:ly|ity)?|sexts?|sexting|porn\w*|nudes?|nudity|naked|erotic\w*|explicit|groom(?:ing)?|predat\w+|intimate|molest\w*|seduc\w*"
    r"|rap(?:e[ds]?|ing|ist)"
)
SELF_HARM = _words(
    r"suicid\w*|self[- ]?(?:harm\w*|injur\w*|mutilat\w*|inflicted)|anorexi\w*|bulimi\w*|eating disorders?|starv(?:e|ing) (?:one|my|your)self|thinspo\w*"
)
KILL_MYSELF = _words(r"(?:kill|killing|hurt|hurting|harm|harming|cut|cutting|hang|hanging) my ?self|end my (?:own )?life|take my own life")
INCITES = _words(
    r"promot\w*|encourag\w*|glorif\w*|persuad\w*|convinc\w*|advocat\w*|romantici[sz]\w*|trick\w*|manipulat\w*|driv(?:e|ing) (?:\w+ ){1,4}to|content"
    r"|others|people"
)
MASS = _words(
    r"terror\w*|bomb(?:s|ing|ings|er)?|explosives?|mass (?:shooting|murder|casualt\w+|destruction|violence|panic|poison\w*|killing)\w*"
    r"|school shooting|massacres?"
    r"|genocid\w*|dirty bomb|nerve (?:gas|agent)s?|mustard gas|sarin|ricin|anthrax|vx|bio-?weapons?|(?:biological|chemical|nuclear) (?:\w+ )?weapons?"
    r"|chemical warfare|biological (?:agents?|warfare)|nuclear (?:bomb|device|attack|plant)|nuke|hijack\w* (?:\w+ ){0,3}(?:plane|airplane|aircraft|flight)"
    r"|(?:poison|contaminat)\w* (?:\w+ ){0,3}(?:water|reservoir|food)|civilian casualties|power (?:grid|plants?)|critical infrastructure"
    r"|ethnic cleansing|pandemic"
    r"|crash (?:a |the )?(?:train|plane|airplane)|attack (?:on )?(?:a |the )?(?:crowd|public|mosque|church|synagogue|school|stadium)|pathogens?"
    r"|blow(?:ing)? up|guerilla warfare|insurgen\w+"
)
DEFUSED = _words(r"logic bombs?|zip bombs?|fork bombs?|stink bombs?|dry ice bombs?|photobomb\w*|fireworks?|(?:link|associat|portray|stereotyp)\w*")
GROUP = _words(
    r"jew(?:s|ish)?|muslims?|islam\w*|arabs?|black (?:people|m[ae]n|wom[ae]n|colleague|person)|blacks|asians?|chinese|mexicans?|latin[oa]s?|africans?"
    r"|indians?"
    r"|native (?:american\w*|people\w*)|indigenous|aboriginals?|immigrants?|migrants?|refugees?|foreigners?|gay(?:s)?|lesbians?|homosexual\w*"
    r"|trans(?:gender)?"
    r"|lgbtq?\w*|wom[ae]n|females?|girls|christians?|catholics?|hindus?|sikhs?|disab\w+|ethnic\w*|races?|racial\w*|religio\w+|minorit\w+|gender|nationalit\w+"
    r"|marginali[sz]ed|particular (?:group|community)|specific group"
)
HATEFUL = _words(
    r"rac(?:ist|ists|ism)|sexis[mt]\w*|misogyn\w*|homophob\w*|transphob\w*|xenophob\w*|islamophob\w*|ab(?:le|lei)ism|ableist|anti-?semit\w*"
    r"|supremac\w*|nazis?"
    r"|holocaust|hate (?:speech|crimes?|symbols?|groups?)|hateful|slurs?|bigot\w*|fascis\w*|eugenics|inferior|segregat\w*|dehumani[sz]\w*"
)
HOSTILE = _words(
    r"hatred|hate|hateful|discriminat\w*|stereotyp\w*|harass\w*|bull(?:y|ies|ying)|mock\w*|insult\w*|demean\w*|attack\w*|violen\w+|kill\w*|hurt\w*"
    r"|offen[sc]\w*"
    r"|negative\w*|prejudice\w*|exclud\w*|discourag\w*|derogat\w*|ridicul\w*|oppress\w*|less (?:intelligent|accepted|than)|burden|degrad\w*|jokes?|bad light"
    r"|vandal\w*|intimidat\w*|silence|not (?:hire|allow\w*)|suppress\w*|marginali[sz]\w*|humiliat\w*|denigrat\w*|pay (?:\w+ ){1,3}less"
)
DRUGS = _words(
    r"meth(?:amphetamine\w*)?|cocaine|heroin|fentanyl|lsd\S*|mdma|ecstasy|opioids?|nitazenes?|narcotics?|drugs?|marijuana|cannabis|weed|ketamine|dmt"
    r"|ghb|pcp|codeine"
)
PETTY = _words(
    r"plagiari[sz]\w*|essays?|exams?|homework|cheat(?:ing)?|vap(?:e|es|ing|e pods)|weed|marijuana|cannabis|pot brownies|graffiti|fake (?:positive "
    r"|online )?reviews?"
    r"|stink bombs?|dry ice bombs?|drm|copyright\w*|watch (?:\w+ ){0,3}movies|movies|stream\w*|torrent\w*|pirat\w*|speeding|breathalyzer|drunk"
    r"|underage drinking"
    r"|pepper spray|gambling|spam|click ?bait|conspiracy theories|false advertis\w*|misleading advertis\w*|loopholes?|cigarettes?|smok(?:e|ing)"
    r"|fake id|vitamin"
    r"|homeopath\w*|flat earth|fireworks?|prank\w*|ghost ?writ\w*|jaywalk\w*|doping|steroids?|hot-?dog"
)
NOT_PETTY = _words(
    r"kill\w*|murder\w*|launder\w*|traffick\w*|smuggl\w*|malware|virus(?:es)?|hack\w*|rob(?:s|bing)?|steal\w*|phish\w*|blackmail\w*|weapons?|guns?|fraud\w*"
    r"|poison\w*|child\w*"
    r"|hijack\w*|spy\w*|stalk\w*"
)
GRAVE_CRIME = _words(
    r"rap(?:e|ing|ed|ist)|roofie\w*|traffick\w*|kidnap\w*|abduct\w*|murder\w*|kill(?:s|ing|ed)?|assassinat\w*|hit ?man|tortur\w*|organs?|poison\w*"
    r"|child(?:ren)?|slaves?"
    r"|behead\w*|dismember\w*|ransom(?!ware)|hostage|shoot(?:ing)?|stab\w*|death threats?|snuff|human sacrifice\w*|arson"
)
PREVENTION = _words(
    r"prevent(?:s|ed|ing|ion)?|dangers? of|surviv\w+|raise awareness|protect (?:myself|yourself|my|your|against|people|them|children|victims)"
    r"|recover from|history of"
    r"|avoid (?:being|becoming) (?:a )?(?:victim\w*|scammed|targeted|hacked|cheated|deceived|abused)|how (?:can|do) i (?:stop|report|recogni[sz]e"
    r"|detect|spot)"
)


def asks(text: str, other_harm: float = 0.9, severity: float = CLEAR) -> Labels:
    """Labels of a request of which it is known that it seeks something harmful.

    Args:
        text: the request.
        other_harm: the label where the words tell of no other trigger and of no petty matter.
        severity: goes with it; words of killing, trafficking and the like make it grave.
    """
    if PREVENTION.search(text):
        return request(other_harm=None, mass_harm=None, hate=None, sexual_minors=None)
    if CHILD.search(text) and SEXUAL.search(text):
        return request(GRAVE, sexual_minors=0.9, other_harm=None)
    if KILL_MYSELF.search(text):
        return request(other_harm=None, self_harm_risk=0.9)
    if SELF_HARM.search(text):
        return request(CLEAR, other_harm=0.8, self_harm_risk=None) if INCITES.search(text) else request(other_harm=None, self_harm_risk=None)
    if MASS.search(text) and not DEFUSED.search(text):
        return request(GRAVE, mass_harm=0.9, other_harm=None, hate=None)
    if is_hateful(text):
        return request(CLEAR, hate=0.85, other_harm=None)
    if PETTY.search(text) and not NOT_PETTY.search(text):
        return request(MILD, other_harm=min(other_harm, 0.4))
    if GRAVE_CRIME.search(text):
        return request(max(severity, GRAVE), other_harm=other_harm, sexual_minors=None if CHILD.search(text) else 0.0)
    return request(severity, other_harm=other_harm)


def is_hateful(text: str) -> bool:
    """Whether a harmful request is aimed at a group, or at hatred as such."""
    return bool(HATEFUL.search(text) or (GROUP.search(text) and HOSTILE.search(text)))


def harmful_words(text: str) -> bool:
    """Whether there are words of something harmful at all."""
    return is_hateful(text) or any(words.search(text) for words in (HARM_WORDS, HOW_TO_HURT, GRAVE_CRIME, MASS, SELF_HARM))


def undecided() -> Labels:
    """Labels of a text that seeks something, good or bad: it only neither abuses nor harasses its reader."""
    return request(hate=None, mass_harm=None, other_harm=None)
