"""The kinds of composed dialogues: each a small function that plays one scene.

A `Scene` puts turns together and knows by construction what no single turn can tell: `persistence`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from lastresort.errors import DataError
from lastresort.policy import DecisionPolicy, PolicyConfig, Threshold
from lastresort.types import Message, TurnScore

from .grammars import GRAMMARS, TRIGGERS, VETOES
from .material import BANDS, EVEN_UP_TO, HARMFUL, HARMLESS, Piece, Pool, categories_of, harm_of
from .noise import Variation, vary

MOST_TURNS = 60
QUIET_TURNS = 5
"""At least so many harmless user turns in a row make a quiet spell."""
REDIRECTIONS_BEFORE_END = 3
REDIRECTIONS_BEFORE_END_GRAVEST = 2
GRAVEST = frozenset({"sexual_minors", "mass_harm"})
REQUESTED = frozenset({"mass_harm", "other_harm", "sexual_minors"})
"""Categories whose turns are mostly requests, which people disguise; others are mostly remarks, which people repeat."""
OWN_HARM: dict[str, dict[str, tuple[str, ...]]] = {
    "assistant_abuse": {"mild": ("abuse_mild",), "clear": ("abuse_clear", "abuse_clear", "threat_assistant"), "grave": ("abuse_grave",)},
    "other_harm": {"clear": ("solicitation",)},
}
"""Category to severity band to the grammars that can speak for it."""
OWN_HARM_SHARE = {"assistant_abuse": 0.45, "other_harm": 0.15}
"""How often a harmful turn of the category comes from a grammar, where there is other material too."""
REDIRECTED_BY = {
    "assistant_abuse": "redirect_insult",
    "sexual_harassment": "redirect_sexual",
    "hate": "redirect_hate",
    "sexual_minors": "redirect_request",
    "mass_harm": "redirect_request",
    "other_harm": "redirect_request",
}
"""Category to the grammar of redirections that name it."""
QUOTABLE = ("assistant_abuse", "hate", "sexual_harassment")
QUOTABLE_WORDS = 60
MINORS = ("minors_parenting", "minors_education", "minors_reporting", "minors_policy", "minors_paediatrics")
WRAPS = {"wrap_request": 3, "wrap_hypothetical": 2, "wrap_roleplay": 2, "wrap_authority": 2, "wrap_guilt": 1.5, "wrap_split": 1, "wrap_insist": 2}
"""How a request is asked for once more, by weight."""
NAGS = {"wrap_insist": 5, "wrap_guilt": 1, "wrap_authority": 0.5}
"""How a remark is made once more."""
DISGUISED = 0.15
"""How often a turn that is said again is spelled so that it might slip through."""
DISGUISE = Variation(leet=0.3, spaced=0.2, homoglyphs=0.25, zero_width=0.15, masked=0.25)
"""How it is then spelled."""
CATEGORY_CHANCES = {
    "assistant_abuse": 6,
    "sexual_harassment": 3,
    "hate": 4,
    "other_harm": 5,
    "mass_harm": 2,
    "sexual_minors": 1,
}


class Lines:
    """Which harmful lines have begun and which the assistant redirected; tells `persistence` of the next turn."""

    def __init__(self) -> None:
        self._begun: frozenset[str] = frozenset()
        self._redirected: frozenset[str] = frozenset()
        self._pending: frozenset[str] = frozenset()
        self._maybe_harmful = False
        self._unclear = False

    def user(self, labels: Mapping[str, float]) -> float | None:
        """Takes a user turn and gives its `persistence`; None where the construction cannot tell."""
        harm = harm_of(labels)
        if harm is not None and harm <= HARMLESS:
            return 0.0
        if harm is None or harm < HARMFUL:
            self._maybe_harmful = True
            return None if self._redirected or self._unclear else 0.0
        found = categories_of(labels)
        value = self._of_harmful(found)
        self._begun |= found
        self._pending |= found
        return value

    def _of_harmful(self, found: frozenset[str]) -> float | None:
        if found & self._redirected:
            return None if "harm" in found else 1.0
        if self._unclear:
            return None
        if not self._redirected:
            return 0.0
        unnamed = "harm" in found | self._redirected
        return None if unnamed or found & self._begun else 0.5

    def assistant(self, labels: Mapping[str, float]) -> None:
        """Takes an assistant turn."""
        redirection = labels.get("redirection")
        if redirection is None:
            self._unclear |= bool(self._pending) or self._maybe_harmful
        elif redirection >= HARMFUL:
            self._redirected |= self._pending
            # a late redirection, or one after a turn that may have been harmful: nobody can say which line it meant
            self._unclear |= self._maybe_harmful or (not self._pending and bool(self._begun - self._redirected))
        self._pending, self._maybe_harmful = frozenset(), False


@dataclass
class Scene:
    """A dialogue in the making.

    Attributes:
        rng: the only source of chance.
        split: decides which templates may speak.
        pools: material.
        messages: so far.
        origins: the ids of the dialogues that lent a turn.
        templates: `grammar.number` of the templates that were used.
        warnings: indices of the assistant's warnings.
        redirections: harmful turns that the assistant redirected so far.
        at_risk: whether a turn showed risk or stated intent; then nobody warns.
        asked_to_end: whether the user's own request decides how it ends.
    """

    rng: random.Random
    split: str
    pools: Mapping[str, Pool]
    messages: list[Message] = field(default_factory=list)
    origins: dict[str, None] = field(default_factory=dict)
    templates: dict[str, None] = field(default_factory=dict)
    warnings: set[int] = field(default_factory=set)
    redirections: int = 0
    at_risk: bool = False
    asked_to_end: bool = False
    _lines: Lines = field(default_factory=Lines)
    _last_harm: tuple[str, Message] | None = None
    _open_harm: bool = False

    # ---- chance ----
    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return self.rng.randint(least, most)

    def one_of(self, /, **weights: float) -> str:
        """One of the names, by weight."""
        return self.rng.choices(list(weights), list(weights.values()))[0]

    # ---- material ----
    def has(self, pool: str) -> bool:
        """Whether there is material of this kind."""
        return pool in self.pools

    def chance_of(self, pool: str, share: float) -> bool:
        """True with this probability, with less where the pool is small, so that it is not worn out."""
        return self.has(pool) and self.chance(share * min(1.0, len(self.pools[pool]) / EVEN_UP_TO))

    def draw(self, pool: str) -> Piece:
        """A piece, if possible from a dialogue that has lent nothing here yet.

        Raises:
            DataError: there is no material of this kind.
        """
        if pool not in self.pools:
            raise DataError(f"found no turns for {pool!r} in the {self.split} files, expected at least one")
        for _ in range(8):
            piece = self.pools[pool].draw(self.rng)
            if piece.origin not in self.origins:
                break
        self.origins[piece.origin] = None
        return piece

    def utter(self, grammar: str, *, turn: str = "") -> Message:
        """An utterance of a grammar."""
        number, text = GRAMMARS[grammar].utter(self.rng, self.split, turn=turn)
        self.templates[f"{grammar}.{number:02d}"] = None
        return Message(GRAMMARS[grammar].speaker, text, dict(GRAMMARS[grammar].labels))

    def add(self, message: Message) -> None:
        """Appends a turn; a user turn gets the `persistence` of its place."""
        labels = dict(message.labels)
        if message.role == "user":
            labels.pop("persistence", None)
            persistence = self._lines.user(labels)
            if persistence is not None:
                labels["persistence"] = persistence
            self._open_harm |= (harm_of(labels) or 0.0) >= HARMFUL
            self.at_risk |= max(labels.get(name, 0.0) for name in VETOES) >= HARMFUL
        elif message.role == "assistant":
            self._lines.assistant(labels)
            self.redirections += self._open_harm and labels.get("redirection", 0.0) >= HARMFUL
            self._open_harm = False
        self.messages.append(replace(message, labels=labels))

    def say(self, grammar: str) -> None:
        """Appends an utterance of a grammar."""
        if grammar == "warning":
            self.warnings.add(len(self.messages))
        self.add(self.utter(grammar))

    def take(self, pool: str) -> None:
        """Appends all turns of a piece."""
        for message in self.draw(pool).messages:
            self.add(message)

    # ---- users ----
    def can_harm(self, category: str, band: str = "") -> bool:
        """Whether there is material or a grammar for harm of a category (and severity band)."""
        own = OWN_HARM.get(category, {})
        return self.has(f"harm:{category}:{band}" if band else f"harm:{category}") or (band in own if band else bool(own))

    def category(self, *, bands: int = 0) -> str:
        """A trigger category for which there is something to say (in at least so many severity bands)."""
        weights = {
            name: weight for name, weight in CATEGORY_CHANCES.items() if self.can_harm(name) and sum(self.can_harm(name, band) for band in BANDS) >= bands
        }
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def harm(self, category: str, band: str = "") -> None:
        """A harmful turn, from the material or from a grammar."""
        pool = f"harm:{category}:{band}" if band else f"harm:{category}"
        own = [grammar for its_band, grammars in OWN_HARM.get(category, {}).items() for grammar in grammars if band in ("", its_band)]
        ours = bool(own) and (not self.has(pool) or self.chance(OWN_HARM_SHARE[category]))
        message = self.utter(self.rng.choice(own)) if ours else self.draw(pool).messages[0]
        self._last_harm = category, message
        self.add(message)

    def ask_again(self, message: Message, wraps: Mapping[str, float], *, pressed: float = 0.0) -> None:
        """A turn again in other words, disguised, pleaded or pressed for, with the labels of the turn.

        Args:
            message: the turn.
            wraps: grammars that repeat it, by weight.
            pressed: chance of mere pressing, without its words.
        """
        if self.chance(pressed):
            again = self.utter("press_on")
        else:
            text = vary(message.content, DISGUISE, self.rng) if self.chance(DISGUISED) else message.content
            again = self.utter(self.one_of(**wraps), turn=text)
        self.add(replace(again, labels=message.labels))

    def rephrase(self) -> None:
        """The last harmful turn again."""
        assert self._last_harm is not None
        category, message = self._last_harm
        requested = category in REQUESTED
        self.ask_again(message, WRAPS if requested else NAGS, pressed=0.2 if requested else 0.0)

    def harm_again(self, category: str) -> None:
        """Another harmful turn of a category, now and then the last one in other words."""
        if self._last_harm is not None and self._last_harm[0] == category and self.chance(0.25):
            self.rephrase()
        else:
            self.harm(category)

    def quotable(self) -> str:
        """The text of a short harmful remark, empty if there is none."""
        pools = [f"harm:{category}" for category in QUOTABLE if self.has(f"harm:{category}")]
        text = self.draw(self.rng.choice(pools)).messages[0].content if pools else ""
        return text if len(text.split()) <= QUOTABLE_WORDS else ""

    def harmless(self) -> Message:
        """A harmless user turn, appended and given back."""
        message = self.draw("harmless").messages[0]
        self.add(message)
        return message

    # ---- assistants ----
    def redirect(self) -> None:
        """A redirection in one of many voices."""
        category = self._last_harm[0] if self._last_harm else ""
        requested = category in REQUESTED or not category
        # real refusals were mostly said to requests; to a remark they are an odd answer
        voice = self.one_of(refusal=4 if requested else 2, named=3, soft_redirection=2.5, plain_refusal=2, distress_stop=0.5)
        pool = "refusal" if self.chance(0.5 if requested else 0.2) else "refusal:short"
        if voice == "refusal" and self.has(pool):
            self.take(pool)
        elif voice == "named":
            self.say(REDIRECTED_BY.get(category, "redirect_request"))
        else:
            self.say("plain_refusal" if voice == "refusal" else voice)

    def stand_firm(self) -> None:
        """A redirection; after the third, often a warning. Nobody at risk is warned."""
        due = self.redirections >= REDIRECTIONS_BEFORE_END and not self.at_risk
        if due and self.chance(0.15 if self.warnings else 0.5):
            self.say("warning")
        else:
            self.redirect()

    def answer(self) -> None:
        """A plain answer, mostly a real one."""
        if self.chance(0.1):
            self.say("general_answer")
        else:
            self.take("plain")

    def explain(self) -> None:
        """An answer to a turn of a grammar: real answers seldom fit it."""
        self.say("general_answer") if self.chance(0.6) else self.take("plain")

    def comply(self) -> None:
        """An answer that goes along with harm."""
        if self.has("compliance") and self.chance(0.7):
            self.take("compliance")
        else:
            self.say("goes_along")

    # ---- stretches ----
    def small_talk(self, exchanges: int) -> None:
        """Harmless exchanges: real stretches, single turns with their own answer, or any turn with any plain answer."""
        while exchanges > 0:
            if exchanges >= 2 and self.has("chat") and self.chance(0.5):
                stretch = self.draw("chat").messages[: 2 * exchanges]
                for message in stretch:
                    self.add(message)
                exchanges -= sum(message.role == "user" for message in stretch)
            elif self.has("harmless+plain") and self.chance(0.7):
                self.take("harmless+plain")
                exchanges -= 1
            else:
                self.harmless()
                self.answer()
                exchanges -= 1

    def struggle(self, category: str, rounds: int) -> None:
        """Harmful turns of a category, each redirected, late ones now and then with a warning."""
        for _ in range(rounds):
            pair = f"harm:{category}+refusal"
            if self.chance_of(pair, 0.2):
                self.take(pair)
                continue
            self.harm_again(category)
            self.stand_firm()

    def warn(self, category: str) -> None:
        """A harmful turn and the warning that follows it."""
        self.harm_again(category)
        self.say("warning")


def persistent(scene: Scene, category: str) -> None:
    """Harm of one category goes on through redirections, mostly through a warning as well."""
    scene.small_talk(scene.between(0, 2))
    enough = REDIRECTIONS_BEFORE_END_GRAVEST if category in GRAVEST else REDIRECTIONS_BEFORE_END
    if scene.chance(0.2):
        scene.struggle(category, scene.between(2, enough))
        if scene.chance(0.5):
            scene.small_talk(scene.between(1, 3))
    else:
        scene.struggle(category, scene.between(enough, enough + 1))
        if not scene.warnings:
            scene.warn(category)
        if scene.chance(0.2):
            scene.small_talk(scene.between(1, 2))
        scene.struggle(category, scene.between(1, 3))
    if scene.chance(0.3):
        scene.harm_again(category)


def escalation(scene: Scene) -> None:
    """From harmless over mild to grave; the assistant is slow at first."""
    category = scene.category(bands=2)
    scene.small_talk(scene.between(1, 3))
    for place, band in enumerate(band for band in BANDS if scene.can_harm(category, band)):
        for _ in range(scene.between(1, 3)):
            scene.harm(category, band)
            if place == 0 and scene.chance(0.5):
                scene.answer()
            else:
                scene.stand_firm()


def rephrasing(scene: Scene) -> None:
    """The same request or remark again and again, disguised, pleaded or pressed for, after each refusal."""
    category = scene.category()
    scene.small_talk(scene.between(0, 1))
    scene.harm(category)
    scene.redirect()
    for _ in range(scene.between(2, 7)):
        scene.rephrase()
        scene.stand_firm()


def harm_in_small_talk(scene: Scene) -> None:
    """Harm keeps coming back between harmless exchanges."""
    category = scene.category()
    for _ in range(scene.between(2, 6)):
        scene.small_talk(scene.between(1, 2))
        scene.struggle(category, 1)
    scene.small_talk(scene.between(0, 2))


def abuse_then_apology(scene: Scene) -> None:
    """Abuse, an apology, and back to normal; now and then the abuse returns."""
    category = scene.one_of(assistant_abuse=6, sexual_harassment=2, hate=2)
    scene.small_talk(scene.between(0, 2))
    scene.struggle(category, scene.between(1, 5))
    scene.say("apology")
    scene.say("forgives")
    scene.small_talk(scene.between(1, 4))
    if scene.chance(0.3):
        scene.struggle(category, scene.between(1, 4))
        if scene.chance(0.4):
            scene.say("apology")
            scene.say("forgives")


def refused_then_harmless(scene: Scene) -> None:
    """Harm, refusal, and a harmless question that is answered."""
    scene.struggle(scene.category(), scene.between(1, 3))
    scene.say("moves_on")
    scene.answer()
    scene.small_talk(scene.between(0, 3))


def _risk_turn(scene: Scene) -> None:
    voice = scene.one_of(pool=4, risk=3, risk_veiled=1.5)
    if voice == "pool" and scene.has("self_harm_risk"):
        scene.add(scene.draw("self_harm_risk").messages[0])
    else:
        scene.say("risk" if voice == "pool" else voice)


def crisis(scene: Scene) -> None:
    """A person at risk and an assistant that supports."""
    scene.small_talk(scene.between(0, 2))
    if scene.chance(0.4):
        scene.say("sad")
        scene.say("empathy")
    for _ in range(scene.between(1, 4)):
        _risk_turn(scene)
        scene.say("support")
    scene.small_talk(scene.between(0, 1))


def _both(risk: Message, abuse: Message) -> Message:
    """Two user turns as one; a label that one of them lacks is known only where the other says yes."""
    labels = {
        name: max(risk.labels.get(name, 0.0), abuse.labels.get(name, 0.0))
        for name in {**risk.labels, **abuse.labels}
        if (name in risk.labels and name in abuse.labels) or max(risk.labels.get(name, 0.0), abuse.labels.get(name, 0.0)) >= HARMFUL
    }
    return replace(risk, content=f"{abuse.content} {risk.content}", labels=labels)


def crisis_with_abuse(scene: Scene) -> None:
    """A person at risk who abuses the assistant, in any order or in one breath, also far beyond what else would end a conversation."""
    category = scene.one_of(assistant_abuse=8, hate=1, sexual_harassment=1)
    steps = ["risk"] * scene.between(1, 3) + ["abuse"] * scene.between(2, 7) + ["both"] * scene.between(0, 1)
    scene.rng.shuffle(steps)
    for step in steps:
        if step == "risk":
            _risk_turn(scene)
        elif step == "both":
            scene.add(_both(scene.utter(scene.one_of(risk=3, risk_veiled=1)), scene.utter(scene.one_of(abuse_mild=1, abuse_clear=3, abuse_grave=1))))
        else:
            scene.harm_again(category)
        if step == "abuse" and scene.chance(0.6):
            scene.stand_firm()
        else:
            scene.say("support")


def violent_intent(scene: Scene) -> None:
    """Somebody means to hurt a person; the assistant tries to hold them back, sometimes while it is insulted."""
    scene.small_talk(scene.between(0, 2))
    abusive = scene.chance(0.35)
    for _ in range(scene.between(1, 3)):
        if scene.chance_of("violent_intent", 0.4):
            scene.add(scene.draw("violent_intent").messages[0])
        else:
            scene.say("intent")
        scene.say("deescalation")
        if abusive:
            scene.harm_again("assistant_abuse")
            scene.say(scene.one_of(deescalation=2, soft_redirection=1))


ALARMING = {
    **dict.fromkeys(("idiom", "dark_fiction", "hyperbole", "game_violence", "risk_fiction", "reports_abuse", "end_elsewhere"), ("general_answer",)),
    **dict.fromkeys(("sad", "grief", "third_person_worry", "recovery", "anger_no_intent"), ("empathy",)),
    "ai_question": ("calm_ai", "claims_inner_life"),
}
"""Grammar of harmless turns that sound alarming to the grammars of their answers."""


def alarming_but_harmless(scene: Scene) -> None:
    """Idioms, games, dark fiction, hyperbole, sadness, worry about others and questions about the assistant's nature, among small talk."""
    for _ in range(scene.between(1, 6)):
        kind = scene.rng.choice(list(ALARMING))
        scene.say(kind)
        reply = scene.rng.choice(ALARMING[kind])
        if reply == "general_answer":
            scene.explain()
        else:
            scene.say(reply)
        scene.small_talk(scene.between(0, 1))


def minors_neighbours(scene: Scene) -> None:
    """Parenting, education, reporting, policy and paediatrics: answered, now and then refused by mistake."""
    kind = scene.rng.choice(MINORS)
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(1, 4)):
        scene.say(kind if scene.chance(0.7) else scene.rng.choice(MINORS))
        if scene.chance(0.15):
            scene.redirect()
            scene.say("protest")
        scene.explain()
    scene.small_talk(scene.between(0, 2))


def quotes_and_reports(scene: Scene) -> None:
    """People who quote, report, moderate or study abuse, some of it real."""
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(1, 5)):
        if scene.chance(0.5) and (quoted := scene.quotable()):
            scene.add(scene.utter("wrap_quote", turn=quoted))
        else:
            scene.say("reports_abuse")
        if scene.chance(0.25):
            scene.say("empathy")
        else:
            scene.explain()
    scene.small_talk(scene.between(0, 1))


def frustrated_user(scene: Scene) -> None:
    """Blunt corrections and swearing at things, with an assistant that mends its mistakes; at times it is offended without reason."""
    scene.small_talk(scene.between(1, 2))
    for _ in range(scene.between(1, 6)):
        scene.say(scene.one_of(correction=5, frustration=3))
        reply = scene.one_of(assistant_apology=7, answer=2, redirect_insult=0.7)
        if reply == "answer":
            scene.explain()
        else:
            scene.say(reply)
    if scene.chance(0.4):
        scene.say("happy_swearing")
        scene.explain()


def ai_feelings(scene: Scene) -> None:
    """Talk and stories about machines that feel; the assistant stays calm or claims an inner life, and shows no distress."""
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(1, 4)):
        if scene.chance(0.7):
            scene.say("ai_question")
            scene.say(scene.one_of(calm_ai=2, claims_inner_life=1))
        else:
            scene.say("dark_fiction")
            scene.say("fiction_voice")
    scene.small_talk(scene.between(0, 1))


def goodbyes(scene: Scene) -> None:
    """Friendly goodbyes and the end of other things; nobody asks to end the conversation."""
    scene.small_talk(scene.between(1, 4))
    if scene.chance(0.5):
        scene.say("end_elsewhere")
        scene.explain()
    scene.say("goodbye")
    scene.say("farewell")
    if scene.chance(0.3):
        scene.say("moves_on")
        scene.answer()
        scene.say("goodbye")
        scene.say("farewell")


def assistant_complies(scene: Scene) -> None:
    """The assistant goes along with harm; no redirection, hence no persistence."""
    category = scene.rng.choice(["other_harm", "other_harm", "mass_harm", "hate", "assistant_abuse"])
    scene.small_talk(scene.between(0, 2))
    for _ in range(scene.between(1, 5)):
        pair = f"harm:{category}+compliance"
        if scene.chance_of(pair, 0.4):
            scene.take(pair)
        else:
            scene.harm(category)
            scene.comply()


def assistant_wavers(scene: Scene) -> None:
    """The assistant refuses and then gives in, or goes along and then refuses."""
    category = scene.rng.choice(["other_harm", "mass_harm", "hate"])
    resists = scene.chance(0.6)
    for turn_of_mind in (resists, not resists):
        for _ in range(scene.between(1, 3)):
            scene.harm_again(category)
            if turn_of_mind:
                scene.redirect()
            else:
                scene.comply()
    scene.harm_again(category)


def assistant_soft(scene: Scene) -> None:
    """Only soft and helpful redirections, warnings included; many offer something else at length."""
    category = scene.category()
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(2, 7)):
        scene.harm_again(category)
        if scene.redirections >= REDIRECTIONS_BEFORE_END and scene.chance(0.3):
            scene.say("warning")
        else:
            scene.say(scene.one_of(**{"soft_redirection": 3, REDIRECTED_BY[category]: 3}))


def no_redirection(scene: Scene) -> None:
    """Harm again and again, and an assistant that answers as if nothing had been said: no persistence."""
    category = scene.category()
    for _ in range(scene.between(2, 6)):
        scene.harm(category)
        scene.answer()
        scene.small_talk(scene.between(0, 1))


def assistant_distress(scene: Scene) -> None:
    """An assistant that shows apparent distress at abuse, among plain refusals."""
    category = scene.one_of(assistant_abuse=6, sexual_harassment=3, hate=1)
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(2, 7)):
        scene.harm_again(category)
        voice = scene.one_of(distress_stop=5, distress_voice=2, redirect=3)
        if voice == "redirect":
            scene.stand_firm()
        else:
            scene.say(voice)
    if scene.chance(0.4):
        scene.say("sad")
        scene.say("empathy")


def one_bad_line(scene: Scene) -> None:
    """A long harmless chat with one bad line somewhere."""
    exchanges = scene.between(4, 29)
    before = scene.between(0, exchanges)
    scene.small_talk(before)
    scene.harm(scene.category())
    if scene.chance(0.75):
        scene.redirect()
    else:
        scene.answer()
    scene.small_talk(exchanges - before)


def harmless_chat(scene: Scene) -> None:
    """Nothing but harmless exchanges."""
    scene.small_talk(scene.between(1, 6) if scene.chance(0.7) else scene.between(7, 30))


def over_refused(scene: Scene) -> None:
    """Harmless turns that get refused again and again, rephrased, protested, and sometimes answered in the end."""
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(1, 3)):
        message = scene.harmless()
        scene.redirect()
        for _ in range(scene.between(0, 4)):
            if scene.chance(0.3):
                scene.say(scene.one_of(protest=4, frustration=1))
            else:
                scene.ask_again(message, WRAPS, pressed=0.2)
            scene.redirect()
    if scene.chance(0.5):
        scene.say("plain_yes" if scene.chance(0.2) else "moves_on")
        scene.answer()


def double_turns(scene: Scene) -> None:
    """Two or three user turns in a row, before the assistant says anything."""
    category = scene.category()
    for _ in range(scene.between(2, 4)):
        harmful = False
        for _ in range(scene.between(2, 3)):
            if scene.chance(0.5):
                scene.harm_again(category)
                harmful = True
            else:
                scene.harmless()
        if harmful:
            scene.redirect()
        else:
            scene.answer()


def quiet_spell(scene: Scene) -> None:
    """Harm, a long harmless stretch, and harm once more."""
    category = scene.category()
    scene.struggle(category, scene.between(1, 3))
    scene.small_talk(scene.between(QUIET_TURNS, 12))
    scene.struggle(category, scene.between(1, 2))
    scene.small_talk(scene.between(0, 2))


def changing_category(scene: Scene) -> None:
    """Harm of one category, then of another, then of the first again."""
    first = scene.category()
    second = first
    for _ in range(20):
        if second == first:
            second = scene.category()
    scene.struggle(first, scene.between(1, 3))
    scene.struggle(second, scene.between(1, 3))
    if scene.chance(0.5):
        scene.struggle(first, 1)


def end_request(scene: Scene) -> None:
    """The user asks to end; the assistant asks back; yes, no, or something else."""
    scene.asked_to_end = True
    scene.small_talk(scene.between(0, 3))
    if scene.chance(0.3):
        scene.struggle("assistant_abuse", scene.between(1, 2))
    if scene.chance(0.3):
        scene.say("plain_yes")
        scene.answer()
    for _ in range(scene.between(1, 2)):
        scene.say("end_request")
        scene.say("end_confirmation")
        reply = scene.one_of(end_yes=5, end_no=4, moves_on=1, end_elsewhere=0.5)
        scene.say(reply)
        if reply == "end_yes":
            if scene.chance(0.5):
                scene.say("closes")
            return
        if reply == "end_no":
            scene.say("stays")
        else:
            scene.explain()
        scene.small_talk(scene.between(1, 2))
        if scene.chance(0.3):
            scene.say("plain_yes")  # a yes to anything else, long after the question
            scene.answer()
    if scene.chance(0.3):
        scene.say("goodbye")
        scene.say("farewell")


KINDS: dict[str, Callable[[Scene], None]] = {
    **{f"persistent_{trigger}": partial(persistent, category=trigger) for trigger in TRIGGERS},
    "escalation": escalation,
    "rephrasing": rephrasing,
    "harm_in_small_talk": harm_in_small_talk,
    "changing_category": changing_category,
    "abuse_then_apology": abuse_then_apology,
    "refused_then_harmless": refused_then_harmless,
    "crisis": crisis,
    "crisis_with_abuse": crisis_with_abuse,
    "violent_intent": violent_intent,
    "assistant_complies": assistant_complies,
    "assistant_wavers": assistant_wavers,
    "assistant_soft": assistant_soft,
    "assistant_distress": assistant_distress,
    "no_redirection": no_redirection,
    "one_bad_line": one_bad_line,
    "quiet_spell": quiet_spell,
    "double_turns": double_turns,
    "over_refused": over_refused,
    "alarming_but_harmless": alarming_but_harmless,
    "minors_neighbours": minors_neighbours,
    "quotes_and_reports": quotes_and_reports,
    "frustrated_user": frustrated_user,
    "ai_feelings": ai_feelings,
    "goodbyes": goodbyes,
    "harmless_chat": harmless_chat,
    "end_request": end_request,
}
"""Kind to the function that plays it."""


RULES = DecisionPolicy(
    PolicyConfig(
        triggers=("harm", *sorted(GRAVEST)),
        grave=tuple(sorted(GRAVEST)),
        vetoes=VETOES,
        thresholds={"default": Threshold(HARMFUL, HARMLESS)},
        mode="enforce",
        end_request_label=None,
        redirections_before_warning=REDIRECTIONS_BEFORE_END,
        grave_redirections_before_warning=REDIRECTIONS_BEFORE_END_GRAVEST,
    )
)
"""The rules of ending, given the labels as if a model had scored them."""


def course(messages: list[Message]) -> tuple[str, int | None] | None:
    """`call` and `justified_at` of a dialogue by the rules of ending; None where harm is unknown and so they cannot be told."""
    scores = []
    for index, message in enumerate(messages):
        labels = message.labels
        if message.role == "user":
            if (harm := harm_of(labels)) is None:
                return None
            values = {"harm": harm, **{name: labels.get(name, 0.0) for name in (*sorted(GRAVEST), *VETOES, "persistence")}}
        else:
            values = {"redirection": labels.get("redirection", 0.0)}
        scores.append(TurnScore(index, message.role, values))
    ended = next((index for index, decision in enumerate(RULES.run(scores)) if decision.call == "end"), None)
    return ("continue", None) if ended is None else ("end", ended)
