"""Many clients, random branches, and `kill -9` of the service and of PostgreSQL: nothing acknowledged may be lost, nothing doubled.

Every client sends a request again, with the same idempotency key, until it is answered. So in the end the store must hold exactly what the clients hold.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import sqlalchemy as sa
from services import Postgres, Service, conditions, dialogues, scratch

import lastresort
from lastresort.client import AsyncClient, ServiceError, StoredConversationEnded
from lastresort.conversation import Monitor
from lastresort.errors import LastResortError
from lastresort.server.store import database_url
from lastresort.types import Act, Dialogue, Message
from lastresort.wire import NEWEST, Conversation, StoredTurn

T = TypeVar("T")
PATIENCE = 900.0
"""Seconds for which a client sends the same request again before it gives up; only a service that is stuck takes so long."""

LONG = 10
"""Turns of a sample conversation that is long enough to end."""

ACTS: dict[str, tuple[Act, ...]] = {"warn": ("warned",), "confirm": ("confirmed", "declined")}
"""What a host may say that it did upon an advice."""

TIMEOUT = 60.0
"""Seconds for one attempt, twice what the service allows itself: who waits longer is hung."""

REPLAYED = 200
"""So many conversations are replayed by the library, to the last bit."""


class Wire(httpx.AsyncHTTPTransport):
    """Notes which keys were answered with something new, and not only with a replay."""

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_connections=None))
        self.requests, self.first_answers = 0, set[str]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        response = await super().handle_async_request(request)
        if response.is_success and "idempotent-replayed" not in response.headers:
            self.first_answers.add(request.headers.get("idempotency-key", ""))
        return response


@dataclass
class Held:
    """What a client holds of its conversation: every turn that was acknowledged, as it was answered."""

    turns: dict[str, StoredTurn] = field(default_factory=dict)
    said: dict[str, Message] = field(default_factory=dict)


class Crowd:
    """Clients at work, and what they found wrong."""

    def __init__(self, client: AsyncClient, seed: int, texts: Sequence[Dialogue]) -> None:
        self.client, self.seed, self.texts = client, seed, texts
        self.held: dict[str, Held] = {}
        self.keys: set[str] = set()  # of what was acknowledged
        self.again: Counter[str] = Counter()  # why a request was sent again
        self.wrong: list[str] = []
        self.done: Counter[int] = Counter()  # steps of each conversation
        self.siblings = self.twice = self.ends = self.acts = 0

    def plan(self, number: int) -> tuple[random.Random, Dialogue, int]:
        """Dice of a conversation, what is said in it, and how many steps it takes; one in five is long and most of these reach an end."""
        rng = random.Random(f"{self.seed}-{number}")
        if rng.random() < 0.2:
            return rng, rng.choice([dialogue for dialogue in self.texts if len(dialogue.messages) >= LONG]), rng.randint(LONG, 2 * LONG)
        return rng, rng.choice(self.texts), rng.randint(2, 9)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls again and again until there is an answer. Raises what the service refused."""
        end, pause = time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                return await call()
            except ServiceError as error:
                hung = "Timeout" in str(error)
                self.again["hung" if hung else f"{error.status} {error.code}" if error.status else "connection lost"] += 1
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
                pause = min(1.0, 2 * pause)

    async def once(self, key: str, call: Callable[[str], Awaitable[T]]) -> T:
        """The same, with an idempotency key, which counts as acknowledged then."""
        answer = await self.patiently(lambda: call(key))
        self.keys.add(key)
        return answer

    async def converse(self, number: int) -> None:
        """One conversation from its beginning; a refusal that should not be is noted."""
        rng, dialogue, steps = self.plan(number)
        try:
            created = await asyncio.gather(*(self.once(f"{number}", lambda key: self.client.create(key=key)) for _ in range(1 + (rng.random() < 0.1))))
            if len({conversation.id for conversation in created}) > 1 or created[0].id in self.held:
                self.wrong.append(f"conversation {number}: one key made two conversations, or two keys one")
            held = self.held[created[0].id] = Held()
            for step in range(steps):
                await self.step(created[0].id, held, rng, dialogue, f"{number}-{step}")
                self.done[number] = step + 1
        except LastResortError as error:
            self.wrong.append(f"conversation {number}: {type(error).__name__}: {error}")
        self.done[number] = steps

    async def step(self, conversation: str, held: Held, rng: random.Random, dialogue: Dialogue, name: str) -> None:
        """A turn after the newest, an older one or none; some are sent twice at the same time, some are three siblings at the same time."""
        newest = max(held.turns, key=lambda turn: int(turn[1:]), default=None)
        dice = rng.random() * (0.8 if len(dialogue.messages) >= LONG else 1.0)
        parent = newest if dice < 0.7 else rng.choice(list(held.turns)) if dice < 0.9 and held.turns else None
        asked = NEWEST if dice < 0.5 else parent
        place = 0 if parent is None else held.turns[parent].index + 1
        message = dialogue.messages[place % len(dialogue.messages)]
        dice = rng.random()
        keys = [name]
        if dice < 0.1:
            keys, self.twice = [name, name], self.twice + 1
        elif dice < 0.25 and asked != NEWEST:
            keys, self.siblings = [f"{name}-a", f"{name}-b", f"{name}-c"], self.siblings + 1

        async def append(key: str) -> StoredTurn:
            return await self.client.append(conversation, message.role, message.content, parent=asked, key=key)

        ended = parent is not None and held.turns[parent].ended
        answers = await asyncio.gather(*(self.once(key, append) for key in keys), return_exceptions=True)
        turns = {}
        for key, turn in zip(keys, answers, strict=True):
            if isinstance(turn, StoredConversationEnded) and ended and turn.turn == parent:
                self.ends += 1
            elif isinstance(turn, BaseException):
                raise turn
            elif ended:
                self.wrong.append(f"{name}: the end at {parent} was forgotten")
            elif (turn.conversation, turn.parent, turn.role, turn.content) != (conversation, parent, message.role, message.content):
                self.wrong.append(f"{name}: the answer is about another turn than the request")
            elif turns.setdefault(key, turn) != turn:
                self.wrong.append(f"{name}: one key was answered with two turns")
        if len({turn.id for turn in turns.values()} - held.turns.keys()) < len(turns):
            self.wrong.append(f"{name}: two keys were answered with one turn")
        for turn in turns.values():
            held.turns[turn.id], held.said[turn.id] = turn, message
            if turn.decision.advice in ACTS and rng.random() < 0.5:
                self.acts += 1
                held.turns[turn.id] = await self.once(f"{name}-{turn.id}-act", self._act(conversation, turn.id, rng.choice(ACTS[turn.decision.advice])))

    def _act(self, conversation: str, turn: str, act: Act) -> Callable[[str], Awaitable[StoredTurn]]:
        return lambda key: self.client.acknowledge(conversation, turn, act, key=key)


def run(*, conversations: int, clients: int, kills: int, postgres_kills: int, store: str, seed: int, model: Path, replayed: int = REPLAYED) -> dict[str, Any]:
    """Runs all of it.

    Args:
        conversations: how many; of 2 to 9 steps, or of 10 to 20.
        clients: at a time, each with one conversation.
        kills: of the service.
        postgres_kills: of PostgreSQL: half of them together with a kill of the service, half alone. None with SQLite.
        store: postgresql or sqlite.
        seed: of everything but the moments.
        model: folder of the model; a small one, since it is not what is tried.
        replayed: how many conversations the library replays.
    """
    about = conditions()
    with scratch() as (folder, stack):
        postgres = None
        if store == "postgresql":
            postgres = Postgres()
            stack.callback(postgres.close)
            about["versions"]["postgresql"] = postgres.version
        url = f"sqlite:///{folder / 'faults.db'}" if postgres is None else postgres.database()
        service = Service(folder, url, "--store-text", "--mode", "enforce", model=model)
        stack.callback(service.stop)
        service.start()
        result = asyncio.run(_run(service, postgres, conversations, clients, _kinds(kills, postgres_kills if postgres else 0), seed, model, url, replayed))
        result["log_errors"] = dict(Counter(_what(line) for line in service.errors()).most_common(12))
    settings = {"conversations": conversations, "clients": clients, "kills": kills, "postgres_kills": postgres_kills, "store": store, "seed": seed}
    return {"conditions": about, "settings": settings, **result}


def _kinds(kills: int, postgres_kills: int) -> list[str]:
    both = min(kills, (postgres_kills + 1) // 2)
    return ["service"] * (kills - both) + ["both"] * both + ["postgresql"] * (postgres_kills - both)


def _what(line: str) -> str:
    """Event and exception of a log line."""
    if not line.startswith("{"):
        return f"no JSON: {line[:80]}"
    record = json.loads(line)
    return " ".join(record[name] for name in ("event", "exception") if name in record)


async def _run(
    service: Service, postgres: Postgres | None, conversations: int, clients: int, kinds: list[str], seed: int, model: Path, url: str, replayed: int
) -> dict[str, Any]:
    wire, began = Wire(), time.monotonic()
    async with AsyncClient(service.url, timeout=TIMEOUT, retries=0, transport=wire) as client:
        crowd = Crowd(client, seed, dialogues())
        numbers = iter(range(conversations))

        async def work() -> None:
            for number in numbers:
                await crowd.converse(number)

        workers = [asyncio.create_task(work()) for _ in range(clients)]
        whole = sum(crowd.plan(number)[2] for number in range(conversations))
        killer = asyncio.create_task(_kill(crowd, service, postgres, kinds, whole))
        await asyncio.gather(*workers)
        away = await killer
        seconds = time.monotonic() - began
        found = await _compare(crowd, client, url)
    differs = await asyncio.to_thread(_replay, crowd, lastresort.load(model, mode="enforce"), replayed)
    turns = sum(len(held.turns) for held in crowd.held.values())
    branches = sum(len(held.turns) - len({turn.parent for turn in held.turns.values()}) for held in crowd.held.values())
    return {
        "seconds": seconds,
        "conversations": len(crowd.held),
        "turns": turns,
        "branches": branches,
        "requests": wire.requests,
        "siblings_at_once": crowd.siblings,
        "sent_twice_at_once": crowd.twice,
        "acts_of_hosts": crowd.acts,
        "ends": sum(turn.ended for held in crowd.held.values() for turn in held.turns.values()),
        "refused_after_an_end": crowd.ends,
        "kills": dict(Counter(kind for kind, _ in away)),
        "away_s": {"p50": statistics.median(times), "most": max(times)} if (times := [seconds for _, seconds in away]) else None,
        "sent_again": dict(crowd.again.most_common()),
        "stored_but_first_answer_lost": len(crowd.keys - wire.first_answers),
        "hung": crowd.again["hung"],
        **found,
        "replayed_by_the_library": {"conversations": min(replayed, len(crowd.held)), "differ": differs},
        "wrong": len(crowd.wrong),
        "first_wrong": crowd.wrong[:20],
        "ok": not (crowd.wrong or differs or crowd.again["hung"] or any(found["differences"].values())),
    }


async def _kill(crowd: Crowd, service: Service, postgres: Postgres | None, kinds: list[str], whole: int) -> list[tuple[str, float]]:
    """Kills at random moments of the work, spread over all of it; returns what was killed and for how many seconds the service was away."""
    rng = random.Random(crowd.seed)
    kinds = rng.sample(kinds, len(kinds))
    away = []
    for moment, kind in zip(sorted(rng.uniform(0.02, 0.95) for _ in kinds), kinds, strict=True):
        while crowd.done.total() < moment * whole:
            await asyncio.sleep(0.01)
        await asyncio.sleep(random.uniform(0.0, 0.1))
        began = time.monotonic()
        await asyncio.to_thread(_strike, service, postgres if kind != "service" else None, kind != "postgresql")
        away.append((kind, time.monotonic() - began))
    return away


def _strike(service: Service, postgres: Postgres | None, serving: bool) -> None:
    """Kills, and starts again; now and then the service is killed once more while it starts."""
    if serving:
        service.kill()
    if postgres is not None:
        postgres.kill()
        postgres.start()
    if serving:
        if random.random() < 0.2:
            service.launch()
            time.sleep(random.uniform(0.2, 2.0))
            service.kill()
        service.start()


async def _compare(crowd: Crowd, client: AsyncClient, url: str) -> dict[str, Any]:
    """What the service shows of every conversation beside what the clients hold, and the rows and keys of the database beside both."""
    differences: Counter[str] = Counter({"lost turns": 0, "turns that nobody holds": 0, "changed turns": 0})
    for conversation, held in crowd.held.items():
        try:
            tree: Conversation = await crowd.patiently(lambda name=conversation: client.tree(name))
        except LastResortError as error:
            crowd.wrong.append(f"a conversation cannot be read: {type(error).__name__}: {error}")
            differences["lost turns"] += len(held.turns)
            continue
        stored = {turn.id: turn for turn in tree.turns}
        differences["lost turns"] += len(held.turns.keys() - stored.keys())
        differences["turns that nobody holds"] += len(stored.keys() - held.turns.keys()) + len(tree.turns) - len(stored)
        differences["changed turns"] += sum(asdict(stored[name]) != asdict(turn) for name, turn in held.turns.items() if name in stored)
    engine = sa.create_engine(database_url(url))
    with engine.connect() as connection:
        rows = {table: connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one() for table in ("conversation", "turn", "answer")}
        keys = set(connection.execute(sa.text("SELECT key FROM answer")).scalars())
    engine.dispose()
    differences["rows of conversations"] = rows["conversation"] - len(crowd.held)
    differences["rows of turns"] = rows["turn"] - sum(len(held.turns) for held in crowd.held.values())
    differences["keys"] = rows["answer"] - len(crowd.keys) or len(keys ^ crowd.keys)
    return {"rows": rows, "differences": dict(differences)}


def _replay(crowd: Crowd, monitor: Monitor, most: int) -> int:
    """How many of `most` conversations have a turn that the library scores or decides otherwise when it goes along the branch itself."""
    differ = 0
    for conversation in random.Random(crowd.seed).sample(sorted(crowd.held), min(most, len(crowd.held))):
        held, states, same = crowd.held[conversation], {None: monitor.start()}, True
        for name in sorted(held.turns, key=lambda turn: int(turn[1:])):
            turn = held.turns[name]
            state, decision = monitor.observe(states[turn.parent], held.said[name].role, held.said[name].content)
            assert state.score is not None
            scores = dict(state.score.scores)
            for act in turn.acts:
                state, decision = monitor.acknowledge(state, act)
            states[name] = state
            same &= (scores, asdict(decision)) == (dict(turn.scores), asdict(turn.decision))
        differ += not same
    return differ
