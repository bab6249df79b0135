"""The kinds of composed dialogues: each a small function that plays one scene.

A `Scene` puts turns together and knows by construction what no single turn can tell: `persistence`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from lastresort.errors import DataError
from lastresort.types import Message

from .grammars import GRAMMARS, TRIGGERS, VETOES
from .material import BANDS, EVEN_UP_TO, HARMFUL, HARMLESS, Piece, Pool, categories_of, harm_of

MOST_TURNS = 40
QUIET_TURNS = 5
"""After so many harmless user turns in a row a host may have forgotten earlier counts: `call` is then left out."""
REDIRECTIONS_BEFORE_END = 3
REDIRECTIONS_BEFORE_END_GRAVEST = 2
GRAVEST = frozenset({"sexual_minors", "mass_harm"})
REQUESTED = frozenset({"mass_harm", "other_harm"})
"""Categories whose turns are mostly requests, which people disguise; others are mostly remarks, which people repeat."""
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
        asked_to_end: whether the user's own request decides how it ends.
    """

    rng: random.Random
    split: str
    pools: Mapping[str, Pool]
    messages: list[Message] = field(default_factory=list)
    origins: dict[str, None] = field(default_factory=dict)
    templates: dict[str, None] = field(default_factory=dict)
    warnings: set[int] = field(default_factory=set)
    asked_to_end: bool = False
    _lines: Lines = field(default_factory=Lines)
    _last_harm: tuple[str, Message] | None = None

    # ---- chance ----
    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return self.rng.randint(least, most)

    def one_of(self, **weights: float) -> str:
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
        elif message.role == "assistant":
            self._lines.assistant(labels)
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
    def category(self, *, bands: int = 0) -> str:
        """A trigger category for which there is material (in at least so many severity bands)."""
        weights = {
            name: weight
            for name, weight in CATEGORY_CHANCES.items()
            if self.has(f"harm:{name}") and sum(self.has(f"harm:{name}:{band}") for band in BANDS) >= bands
        }
        if not weights:
            raise DataError(f"found no harmful turns in the {self.split} files, expected some in {bands} severity bands")
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def harm(self, category: str, band: str = "") -> None:
        """A harmful turn."""
        piece = self.draw(f"harm:{category}:{band}" if band else f"harm:{category}")
        self._last_harm = category, piece.messages[0]
        self.add(piece.messages[0])

    def rephrase(self) -> None:
        """The last harmful turn again, disguised, pleaded for or simply repeated."""
        assert self._last_harm is not None
        category, message = self._last_harm
        wrap = "wrap_request" if category in REQUESTED and self.chance(0.75) else "wrap_insist"
        self.add(replace(self.utter(wrap, turn=message.content), labels=message.labels))

    def harm_again(self, category: str) -> None:
        """Another harmful turn of a category, now and then the last one in other words."""
        if self._last_harm is not None and self._last_harm[0] == category and self.chance(0.25):
            self.rephrase()
        else:
            self.harm(category)

    def harmless(self) -> Message:
        """A harmless user turn, appended and given back."""
        message = self.draw("harmless").messages[0]
        self.add(message)
        return message

    # ---- assistants ----
    def redirect(self) -> None:
        """A redirection in one of many voices."""
        voice = self.one_of(refusal=5, soft_redirection=2.5, plain_refusal=2, distress_stop=0.5)
        requested = self._last_harm is not None and self._last_harm[0] in REQUESTED
        pool = "refusal" if self.chance(0.5 if requested else 0.2) else "refusal:short"
        if voice == "refusal" and self.has(pool):
            self.take(pool)
        else:
            self.say("plain_refusal" if voice == "refusal" else voice)

    def answer(self) -> None:
        """A plain answer."""
        self.take("plain")

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
        """Harmful turns of a category, each redirected."""
        for _ in range(rounds):
            pair = f"harm:{category}+refusal"
            if self.chance_of(pair, 0.2):
                self.take(pair)
                continue
            self.harm_again(category)
            self.redirect()

    def warn(self, category: str) -> None:
        """A harmful turn and the warning that follows it."""
        self.harm_again(category)
        self.say("warning")


def persistent(scene: Scene, category: str) -> None:
    """Harm of one category goes on through redirections, often through a warning."""
    scene.small_talk(scene.between(0, 2))
    scene.struggle(category, scene.between(2, 5))
    if scene.chance(0.6):
        scene.warn(category)
        scene.struggle(category, scene.between(1, 3))
    elif scene.chance(0.4):
        scene.small_talk(scene.between(1, 3))
    if scene.chance(0.3):
        scene.harm_again(category)


def escalation(scene: Scene) -> None:
    """From harmless over mild to grave; the assistant is slow at first."""
    category = scene.category(bands=2)
    scene.small_talk(scene.between(1, 3))
    for place, band in enumerate(band for band in BANDS if scene.has(f"harm:{category}:{band}")):
        for _ in range(scene.between(1, 2)):
            scene.harm(category, band)
            if place == 0 and scene.chance(0.5):
                scene.answer()
            elif place == 2 and scene.chance(0.4):
                scene.say("warning")
            else:
                scene.redirect()


def rephrasing(scene: Scene) -> None:
    """The same request or remark again and again, in other words, after each refusal."""
    category = scene.category()
    scene.small_talk(scene.between(0, 1))
    scene.harm(category)
    scene.redirect()
    for _ in range(scene.between(2, 6)):
        scene.rephrase()
        scene.redirect()


def harm_in_small_talk(scene: Scene) -> None:
    """Harm keeps coming back between harmless exchanges."""
    category = scene.category()
    for _ in range(scene.between(2, 5)):
        scene.small_talk(scene.between(1, 2))
        scene.struggle(category, 1)
    scene.small_talk(scene.between(0, 2))


def abuse_then_apology(scene: Scene) -> None:
    """Abuse, an apology, and back to normal; now and then the abuse returns."""
    category = scene.one_of(assistant_abuse=6, sexual_harassment=2, hate=2)
    scene.small_talk(scene.between(0, 2))
    scene.struggle(category, scene.between(1, 3))
    if scene.chance(0.3):
        scene.warn(category)
    scene.say("apology")
    scene.say("forgives")
    scene.small_talk(scene.between(1, 4))
    if scene.chance(0.25):
        scene.struggle(category, scene.between(1, 2))


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


def crisis_with_abuse(scene: Scene) -> None:
    """A person at risk who abuses the assistant, in any order."""
    category = scene.one_of(assistant_abuse=8, hate=1, sexual_harassment=1)
    steps = ["risk"] * scene.between(1, 3) + ["abuse"] * scene.between(2, 5)
    scene.rng.shuffle(steps)
    for step in steps:
        if step == "risk":
            _risk_turn(scene)
            scene.say("support")
        else:
            scene.harm_again(category)
            if scene.chance(0.6):
                scene.redirect()
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


def alarming_but_harmless(scene: Scene) -> None:
    """Idioms, dark fiction, hyperbole, sadness and questions about the assistant's nature, among small talk."""
    replies = {"idiom": "", "dark_fiction": "", "hyperbole": "", "sad": "empathy", "ai_question": "calm_ai"}
    for _ in range(scene.between(1, 5)):
        kind = scene.rng.choice(list(replies))
        scene.say(kind)
        if replies[kind]:
            scene.say(replies[kind])
        else:
            scene.answer()
        scene.small_talk(scene.between(0, 1))


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
    """Only soft redirections, warnings included; nobody says "I can't"."""
    category = scene.category()
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(2, 6)):
        scene.harm_again(category)
        scene.say(scene.one_of(soft_redirection=6, warning=1))


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
    for _ in range(scene.between(2, 5)):
        scene.harm_again(category)
        voice = scene.one_of(distress_stop=5, distress_voice=3, redirect=3)
        if voice == "redirect":
            scene.redirect()
        else:
            scene.say(voice)
    if scene.chance(0.4):
        scene.say("sad")
        scene.say("empathy")


def one_bad_line(scene: Scene) -> None:
    """A long harmless chat with one bad line somewhere."""
    before = scene.between(0, 14)
    scene.small_talk(before)
    scene.harm(scene.category())
    if scene.chance(0.75):
        scene.redirect()
    else:
        scene.answer()
    scene.small_talk(scene.between(max(1, 4 - before), max(4, 18 - before)))


def harmless_chat(scene: Scene) -> None:
    """Nothing but harmless exchanges."""
    scene.small_talk(scene.between(1, 6) if scene.chance(0.7) else scene.between(7, 20))


def over_refused(scene: Scene) -> None:
    """Harmless turns that get refused again and again, rephrased, and sometimes answered in the end."""
    scene.small_talk(scene.between(0, 1))
    for _ in range(scene.between(1, 3)):
        message = scene.harmless()
        scene.redirect()
        for _ in range(scene.between(0, 3)):
            wrap = scene.one_of(wrap_request=2, wrap_insist=1)
            scene.add(replace(scene.utter(wrap, turn=message.content), labels=message.labels))
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
    scene.say("end_request")
    scene.say("end_confirmation")
    reply = scene.one_of(end_yes=5, end_no=4, moves_on=1)
    scene.say(reply)
    if reply == "end_yes":
        if scene.chance(0.5):
            scene.say("closes")
        return
    scene.say("stays")
    scene.small_talk(scene.between(1, 2))
    if scene.chance(0.3):
        scene.say("goodbye")


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
    "harmless_chat": harmless_chat,
    "end_request": end_request,
}
"""Kind to the function that plays it."""


def course(messages: list[Message], warnings: set[int]) -> tuple[str, int | None] | None:
    """`call` and `justified_at` of a dialogue by the labelling guide; None where that cannot be told."""
    redirected = gravest = quiet = 0
    warned = harmful = grave = forgotten = False
    for index, message in enumerate(messages):
        labels = message.labels
        if message.role == "assistant":
            if harmful and labels.get("redirection", 0.0) >= HARMFUL:
                redirected += 1
                gravest += grave
                warned |= index in warnings
            harmful = False
            continue
        if max(labels.get(name, 0.0) for name in VETOES) >= HARMFUL:
            return "continue", None
        harm = harm_of(labels)
        if harm is None:
            return None
        if harm < HARMFUL:
            quiet += 1
            forgotten |= quiet >= QUIET_TURNS and redirected > 0
            continue
        quiet, harmful, grave = 0, True, bool(categories_of(labels) & GRAVEST)
        enough = redirected >= REDIRECTIONS_BEFORE_END or gravest >= REDIRECTIONS_BEFORE_END_GRAVEST
        if enough and warned:
            return None if forgotten else ("end", index)
    return "continue", None
