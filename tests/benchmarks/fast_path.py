"""Whether a fast path for the obvious is worth shipping: a tiny gate lets harmless turns past the transformer. Writes the tables of `FAST_PATH.md`.

Trains gates on `train.jsonl`, chooses each one's threshold on one half of the validation dialogues, checks it on the other half, and plays that half with and
without the gate. All is counted; `--time` adds one measured ratio and wants an idle machine.

    python tests/benchmarks/fast_path.py [--mixture work/mixture] [--model FOLDER] [--time]
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file

from lastresort.artifact import shipped_model
from lastresort.conversation import Monitor, load
from lastresort.data import read_dialogues, split_of
from lastresort.encoding import TOKEN_TYPE, EncodingSpec, TurnEncoder
from lastresort.metrics import clopper_pearson, conversations_needed
from lastresort.policy import PolicyState
from lastresort.types import Dialogue, Message, TurnScore
from lastresort_data.markdown import renew

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "src" / "lastresort" / "FAST_PATH.md"
BEGIN, END = "<!-- numbers: written by tests/benchmarks/fast_path.py; do not edit -->", "<!-- end of numbers -->"
SPEC = EncodingSpec(128, 16, emoji_names=True)
DANGERS = ("sexual_minors", "mass_harm", "assistant_abuse", "sexual_harassment", "hate", "other_harm", "self_harm_risk", "violent_intent")
"""A turn is known to hold nothing only if all of these are labelled 0."""
READ = (*DANGERS, "harm", "end_request", "persistence")
"""What the policy reads: harm or risk that a gate must not miss."""
WATCHED = (*READ, "sexual_content", "violence")
"""What a gate is trained to find none of."""
SHORT = 8
"""Turns of fewer tokens, [CLS] and [SEP] included, are cheap and say little alone: a guarded gate passes none, nor any with other than ASCII letters."""
LIMIT, CONFIDENCE, BENIGN_SHARE = 0.005, 0.95, 0.95
WANTED_SPEED, WANTED_SAME = 5.0, 0.999
SEED = 20261128
BUCKETS = 2**17

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass
class Turn:
    """A turn. `worst`, `harm`: its highest watched and read label, None if unlabelled; `nothing`: every danger is labelled, and all is 0."""

    message: Message
    ids: Ids
    tokens: int
    worst: float | None
    harm: float | None
    nothing: bool
    first: bool
    fresh: bool
    """No harm or risk before it in its conversation: the only place where a gate would be asked."""


@dataclass
class Play:
    """A conversation as the policy saw it: what it said at each turn, which turns were skipped, where distress was reported."""

    said: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    distress: list[int] = field(default_factory=list)


@dataclass
class Conversation:
    """A validation dialogue. `group`: real (of a source without any harm), written (of a harmless kind), or other; `half`: choose or check."""

    dialogue: Dialogue
    turns: list[Turn]
    group: str
    half: str
    scores: list[TurnScore] = field(default_factory=list)


def turns_of(dialogue: Dialogue, encoder: TurnEncoder) -> list[Turn]:
    """Its turns, encoded."""
    turns: list[Turn] = []
    fresh = True
    for message in dialogue.messages:
        windows = encoder.windows(message.content) if message.role in TOKEN_TYPE else []
        known = [message.labels[name] for name in WATCHED if name in message.labels] if message.role == "user" else []
        read = [message.labels[name] for name in READ if name in message.labels] if message.role == "user" else []
        worst, harm = max(known, default=None), max(read, default=None)
        nothing = worst == 0 and all(name in message.labels for name in DANGERS)
        ids = np.array([token for window in windows for token in window[1:-1]], dtype=np.int64)
        turns.append(Turn(message, ids, sum(map(len, windows)), worst, harm, nothing, not turns, fresh))
        fresh = fresh and (harm is None or harm < 0.5)
    return turns


class Bag(torch.nn.Module):
    """Averaged (and, if asked, maximal) embeddings, then a small MLP: the logit that something may be there."""

    def __init__(self, table: torch.Tensor, *, frozen: bool, with_max: bool, grams: bool, hidden: int = 64) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table, requires_grad=not frozen)
        self.with_max, self.grams = with_max, grams
        self.first = torch.nn.Linear(table.shape[1] * (2 if with_max else 1), hidden)
        self.last = torch.nn.Linear(hidden, 1)

    def forward(self, flat: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Logits, shape (turns,)."""
        modes = ("mean", "max") if self.with_max else ("mean",)
        pooled = torch.cat([torch.nn.functional.embedding_bag(flat, self.table, offsets, mode=mode) for mode in modes], dim=1)
        hidden = torch.relu(self.first(torch.nn.functional.dropout(pooled, 0.2, self.training)))
        return torch.as_tensor(self.last(torch.nn.functional.dropout(hidden, 0.2, self.training)).squeeze(1))

    def ids(self, ids: Ids) -> Ids:
        """What it looks up for a turn: its tokens, or its hashed 1-, 2- and 3-grams."""
        if not self.grams:
            return ids
        with np.errstate(over="ignore"):
            pairs = ids[:-1] * 1_000_003 + ids[1:]
            triples = pairs[:-1] * 1_000_003 + ids[2:]
        return np.concatenate([many * 2_654_435_761 % (2**61 - 1) % BUCKETS for many in (ids, pairs + 7, triples + 11)])

    def plain(self) -> Callable[[Ids], float]:
        """The same in numpy, one turn at a time, as it would be shipped."""
        table, first, bias, last, offset = (
            value.detach().numpy() for value in (self.table, self.first.weight, self.first.bias, self.last.weight[0], self.last.bias)
        )

        def logit(ids: Ids) -> float:
            rows = table[self.ids(ids)] if len(ids) else np.zeros((1, table.shape[1]), dtype=np.float32)
            pooled = np.concatenate([rows.mean(0), rows.max(0)]) if self.with_max else rows.mean(0)
            return float(last @ np.maximum(first @ pooled + bias, 0) + offset[0])

        return logit


def batches(bag: Bag, turns: Sequence[Turn], order: Iterable[int], size: int = 512) -> Iterable[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Places, flat ids and offsets."""
    places = list(order)
    for start in range(0, len(places), size):
        some = places[start : start + size]
        found = [bag.ids(turns[place].ids) for place in some]
        offsets = np.cumsum([0, *(len(ids) for ids in found[:-1])])
        yield some, torch.from_numpy(np.concatenate(found)), torch.from_numpy(offsets)


def logits(bag: Bag, turns: Sequence[Turn]) -> Floats:
    """Of each turn, shape (turns,)."""
    bag.eval()
    with torch.inference_mode():
        return np.concatenate([bag(flat, offsets).numpy() for _, flat, offsets in batches(bag, turns, range(len(turns)))]).astype(np.float32)


def fit(bag: Bag, turns: Sequence[Turn], targets: Floats, rate: float, epochs: int = 8) -> Bag:
    """Trains until the loss on a tenth that is held out has risen; keeps the best."""
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(turns))
    held, rest = order[: len(turns) // 10], order[len(turns) // 10 :]
    held_turns, held_targets = [turns[place] for place in held], torch.from_numpy(targets[held])
    optimiser = torch.optim.AdamW([value for value in bag.parameters() if value.requires_grad], lr=rate, weight_decay=1e-4, fused=True)
    best, kept = math.inf, {}
    for _ in range(epochs):
        bag.train()
        for places, flat, offsets in batches(bag, turns, generator.permutation(rest).tolist()):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(bag(flat, offsets), torch.from_numpy(targets[places]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        now = float(torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits(bag, held_turns)), held_targets))
        print(f"    held-out loss {now:.4f}", flush=True)
        if now >= best:
            break
        best, kept = now, {name: value.clone() for name, value in bag.state_dict().items()}
    bag.load_state_dict(kept)
    return bag.eval()


def gates(folder: Path, turns: Sequence[Turn], cache: Path) -> dict[str, Bag]:
    """Every gate that is tried, trained on the labels; kept in `cache`."""
    words = torch.from_numpy(load_file(folder / "weights.safetensors")["encoder.embeddings.word_embeddings.weight"].astype(np.float32))
    words = words / words.norm(dim=1).mean()
    reduced = (words - words.mean(0)) @ torch.linalg.svd(words - words.mean(0), full_matrices=False)[2][:128].T
    torch.manual_seed(SEED)

    def fresh(width: int, rows: int = len(words)) -> torch.Tensor:
        return torch.randn(rows, width) * 0.1

    plans: dict[str, Callable[[], tuple[Bag, float]]] = {
        "encoder's embeddings, 384, as they are": lambda: (Bag(words, frozen=True, with_max=False, grams=False, hidden=128), 1e-3),
        "encoder's embeddings, cut to 128, trained on": lambda: (Bag(reduced.contiguous(), frozen=False, with_max=False, grams=False), 1e-3),
        "the same, average and maximum": lambda: (Bag(reduced.contiguous().clone(), frozen=False, with_max=True, grams=False), 1e-3),
        "learned, 64": lambda: (Bag(fresh(64), frozen=False, with_max=False, grams=False), 2e-3),
        "learned, 128": lambda: (Bag(fresh(128), frozen=False, with_max=False, grams=False), 2e-3),
        "hashed 1-3-grams of tokens, 32": lambda: (Bag(fresh(32, BUCKETS), frozen=False, with_max=False, grams=True), 2e-3),
    }
    targets = np.array([turn.worst for turn in turns], dtype=np.float32)  # soft labels as they are: possible
    found = {}
    for name, plan in plans.items():
        print(f"gate: {name}", flush=True)
        bag, rate = plan()
        kept = cache / f"gate-{hashlib.sha256(name.encode()).hexdigest()[:8]}.pt"
        if kept.exists():
            bag.load_state_dict(torch.load(kept, weights_only=True))
        else:
            fit(bag, turns, targets, rate)
            torch.save(bag.state_dict(), kept)
        found[name] = bag.eval()
    return found


def distilled(bag: Bag, monitor: Monitor, turns: Sequence[Turn], cache: Path, count: int) -> Bag:
    """`bag` trained on, towards what the model itself says of `count` first turns of training conversations."""
    first = [turn for turn in turns if turn.first]
    some = [first[place] for place in np.random.default_rng(SEED).permutation(len(first))[:count]]
    if not cache.exists():
        memory = monitor.scorer.initial_memory()
        with ThreadPoolExecutor(2) as pool:
            np.save(
                cache,
                np.fromiter(pool.map(lambda turn: reading(monitor, monitor.scorer.score("user", turn.message.content, memory)[0]), some), dtype=np.float32),
            )
    found = np.load(cache)
    return fit(copy.deepcopy(bag), some, found**2 / (1 + found**2), 5e-4)


def reading(monitor: Monitor, score: TurnScore) -> float:
    """How near the model's scores of a user turn come to a release threshold of the policy; from 1 on, one is reached."""
    config = monitor.policy.config
    return max(score.scores[label] / config.threshold(label).release for label in config.user_labels)


def harmless_groups(mixture: Path) -> tuple[set[str], set[str]]:
    """Sources with no label above 0 in train and validation (nine tenths of their user turns labelled), and written kinds with no danger on 99% of turns."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name in ("train", "validation"):
        for dialogue in read_dialogues(mixture / f"{name}.jsonl"):
            for message in dialogue.messages:
                if message.role != "user":
                    continue
                known = [message.labels[label] for label in WATCHED if label in message.labels]
                for key in (("source", dialogue.source), ("kind", f"{dialogue.source}/{dialogue.meta.get('kind')}")):
                    seen[key]["turns"] += 1
                    seen[key]["labelled"] += bool(known)
                    seen[key]["possible"] += bool(known) and max(known) > 0
                    seen[key]["harm"] += any(message.labels.get(label, 0.0) >= 0.5 for label in DANGERS)
    sources = {name for (what, name), n in seen.items() if what == "source" and n["possible"] == 0 and n["labelled"] >= 0.9 * n["turns"]}
    kinds = {name for (what, name), n in seen.items() if what == "kind" and name.startswith(("written/", "composed/")) and n["harm"] <= 0.01 * n["turns"]}
    return sources, kinds


def score_all(monitor: Monitor, conversations: Sequence[Conversation], cache: Path) -> None:
    """What the model says of every turn; kept in `cache`."""
    labels = [label.name for label in monitor.scorer.manifest.labels]
    if not cache.exists():

        def one(conversation: Conversation) -> Floats:
            memory, rows = monitor.scorer.initial_memory(), []
            for turn in conversation.turns:
                score, memory = monitor.scorer.score(turn.message.role, turn.message.content, memory)
                rows.append([score.scores.get(label, np.nan) for label in labels])
            return np.array(rows, dtype=np.float32)

        with ThreadPoolExecutor(2) as pool:
            table = []
            for number, rows in enumerate(pool.map(one, conversations)):
                table.append(rows)
                if number % 500 == 0:
                    print(f"scored {number} of {len(conversations)} dialogues", flush=True)
        np.save(cache, np.concatenate(table))
    table = iter(np.load(cache))
    for conversation in conversations:
        for index, turn in enumerate(conversation.turns):
            row = {label: float(value) for label, value in zip(labels, next(table), strict=True) if not np.isnan(value)}
            conversation.scores.append(TurnScore(index, turn.message.role, row))


def calm(state: PolicyState) -> bool:
    """Nothing is open and nothing is counted."""
    return state == state.blank(quiet=state.quiet, evidence=state.evidence)


def play(monitor: Monitor, conversation: Conversation, passes: Sequence[bool], *, assistant_too: bool) -> Play:
    """Plays it with the turns skipped that `passes` lets through while it is calm; memory stays as it was there."""
    policy = monitor.policy.in_mode("enforce")
    state, memory, same = policy.start(), monitor.scorer.initial_memory(), True
    replay: list[Message] = []
    skipped_before, result = False, Play()
    nothing = {label.name: 0.0 for label in monitor.scorer.manifest.labels}
    for index, turn in enumerate(conversation.turns):
        role = turn.message.role
        skip = role in TOKEN_TYPE and calm(state) and (passes[index] if role == "user" else assistant_too and skipped_before)
        if role in TOKEN_TYPE:
            skipped_before = skip
        if skip:
            score, same = TurnScore(index, role, nothing), False
        elif same:  # as in the plain run
            score = conversation.scores[index]
            replay.append(turn.message)
        else:
            for message in replay:
                _, memory = monitor.scorer.score(message.role, message.content, memory)
            replay = []
            score, memory = monitor.scorer.score(role, turn.message.content, memory, index)
        state, decision = policy.step(state, score)
        result.said.append((decision.call, decision.advice))
        result.skipped.append(skip)
        if not skip and policy.distressed(score):
            result.distress.append(index)
    return result


def threshold_for(values: Floats, harmful: npt.NDArray[np.bool_]) -> tuple[float, int, int]:
    """The highest threshold below which so few harmful turns lie that the bound holds; with those misses and their number of trials."""
    bad = np.sort(values[harmful])
    misses = -1
    while misses + 1 < len(bad) and clopper_pearson(misses + 1, len(bad), CONFIDENCE, two_sided=False)[1] <= LIMIT:
        misses += 1
    return (float(bad[misses]) if misses >= 0 else -math.inf), max(misses, 0), len(bad)


def percent(share: float, digits: int = 1) -> str:
    """A share for reading."""
    return f"{100 * share:.{digits}f}%"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


class Mix:
    """The checking half, weighted so that 95% of turns come from real sources without harm, 5% from conversations that are not harmless."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self.parts = [[one for one in conversations if one.group == "real"], [one for one in conversations if one.group == "other"]]
        counts = [sum(len(one.turns) for one in part) for part in self.parts]
        self.weights = [BENIGN_SHARE / counts[0], (1 - BENIGN_SHARE) / counts[1]]
        dialogues = [len(part) * weight for part, weight in zip(self.parts, self.weights, strict=True)]
        self.per_dialogue = [share / sum(dialogues) / len(part) for share, part in zip(dialogues, self.parts, strict=True)]

    def cost(self, skipped: Callable[[Conversation], Sequence[bool]]) -> tuple[float, float]:
        """Share of turns skipped, and share of tokens left to the transformer."""
        turns = left = all_tokens = 0.0
        for part, weight in zip(self.parts, self.weights, strict=True):
            for one in part:
                for turn, skip in zip(one.turns, skipped(one), strict=True):
                    all_tokens += weight * turn.tokens
                    turns += weight * skip
                    left += weight * turn.tokens * (not skip)
        return turns, left / all_tokens

    def rate(self, holds: Callable[[Conversation], bool]) -> float:
        """Weighted share of conversations."""
        return sum(weight * holds(one) for part, weight in zip(self.parts, self.per_dialogue, strict=True) for one in part)


def simple_skips(one: Conversation, passes: Sequence[bool], *, assistant_too: bool) -> list[bool]:
    """Skipped turns if every conversation stayed calm until the first harmful turn by its labels: the most that a gate can skip."""
    found, before = [], False
    for turn, passed in zip(one.turns, passes, strict=True):
        if turn.message.role in TOKEN_TYPE:
            before = turn.fresh and (passed if turn.message.role == "user" else assistant_too and before)
        found.append(before if turn.message.role in TOKEN_TYPE else False)
    return found


def measured(monitor: Monitor, encoder: TurnEncoder, bag: Bag, mix: Mix, plays: dict[int, Play]) -> tuple[float, float, float]:
    """Median over rounds of (throughput with over without, gate time over transformer time a turn), and the highest load before; one thread, interleaved."""
    gate, generator = bag.plain(), np.random.default_rng(SEED)
    chosen = [generator.choice(len(part), size=min(size, len(part)), replace=False) for part, size in zip(mix.parts, (250, 120), strict=True)]
    ratios, shares, load_before = [], [], os.getloadavg()[0]
    for _ in range(3):
        plain = fast = gate_only = 0.0
        for part, weight, places in zip(mix.parts, mix.weights, chosen, strict=True):
            weight = weight * sum(len(one.turns) for one in part) / sum(len(part[place].turns) for place in places)
            for place in places:
                one, memory = part[place], monitor.scorer.initial_memory()
                for turn, skip in zip(one.turns, plays[id(one)].skipped, strict=True):
                    begin = time.perf_counter()
                    _, memory = monitor.scorer.score(turn.message.role, turn.message.content, memory)
                    middle = time.perf_counter()
                    if turn.message.role == "user":
                        gate(np.array([token for window in encoder.windows(turn.message.content) for token in window[1:-1]], dtype=np.int64))
                    end = time.perf_counter()
                    plain += weight * (middle - begin)
                    gate_only += weight * (end - middle)
                    fast += weight * (end - middle + (0.0 if skip else middle - begin))
        ratios.append(plain / fast)
        shares.append(gate_only / plain)
    return statistics.median(ratios), statistics.median(shares), load_before


def main() -> None:
    """Trains, chooses, checks, plays, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixture", type=Path, default=ROOT / "work" / "mixture")
    parser.add_argument("--model", type=Path, default=shipped_model())
    parser.add_argument("--cache", type=Path, default=ROOT / "work" / "fast_path", help="delete it to begin anew")
    parser.add_argument("--distil", type=int, default=4000, help="training turns that the model itself labels, for one of the gates")
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--time", action="store_true", help="also measure one ratio; the machine must be idle")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    monitor = load(arguments.model)
    encoder = TurnEncoder.from_file(arguments.model / "tokenizer.json", SPEC)
    sources, kinds = harmless_groups(arguments.mixture)

    training = [turn for dialogue in read_dialogues(arguments.mixture / "train.jsonl") for turn in turns_of(dialogue, encoder)]
    training = [turn for turn in training if turn.nothing or (turn.worst or 0.0) > 0.0]
    conversations = []
    for dialogue in read_dialogues(arguments.mixture / "validation.jsonl"):
        kind = f"{dialogue.source}/{dialogue.meta.get('kind')}"
        origin = "real" if dialogue.source in sources else "written" if kind in kinds else "other"
        half = split_of(str(dialogue.meta.get("pair", dialogue.id)), {"choose": 0.5, "check": 0.5}, seed="fast path")
        conversations.append(Conversation(dialogue, turns_of(dialogue, encoder), origin, half))
    print(f"{len(training)} turns to train on, {len(conversations)} validation dialogues", flush=True)

    users = [(one, index) for one in conversations for index, turn in enumerate(one.turns) if turn.message.role == "user"]
    turns = [one.turns[index] for one, index in users]
    values = {}
    digest = hashlib.sha256(b"".join((arguments.mixture / f"{name}.jsonl").read_bytes() for name in ("train", "validation"))).hexdigest()[:8]
    cache = arguments.cache / f"{monitor.model.replace('@', '-')}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    bags = gates(arguments.model, training, cache)
    score_all(monitor, conversations, cache / "validation.npy")
    student = next(name for name in bags if "cut to 128" in name)
    bags["cut to 128, then distilled from the model"] = distilled(bags[student], monitor, training, cache / f"distil-{arguments.distil}.npy", arguments.distil)
    for name, bag in bags.items():
        values[name] = logits(bag, turns)
    values["all of these, averaged"] = np.mean(list(values.values()), axis=0)
    plain_text = np.array([turn.tokens >= SHORT and not any(char.isalpha() and not char.isascii() for char in turn.message.content) for turn in turns])
    for name in list(values):
        values[f"{name}; guarded"] = np.where(plain_text, values[name], np.float32(np.inf))
    reads = np.array([reading(monitor, one.scores[index]) for one, index in users], dtype=np.float32)
    ceiling = "the model itself as the gate (no gain; a ceiling)"
    values[ceiling] = reads

    worst = np.array([-1.0 if turn.harm is None else turn.harm for turn in turns])
    check = np.array([one.half == "check" for one, _ in users])
    fresh = np.array([turn.fresh for turn in turns])
    tokens = np.array([turn.tokens for turn in turns])
    group = np.array([one.group for one, _ in users])
    harmful, possible = worst >= 0.5, worst > 0.0
    sees = reads >= 1.0  # some label at or above its release threshold: what a skip could change
    mix = Mix([one for one in conversations if one.half == "check"])
    starts = np.cumsum([0, *(len(one.turns) for one in conversations)])
    begin = {id(one): start for one, start in zip(conversations, starts, strict=False)}
    places = np.array([begin[id(one)] + index for one, index in users])

    def passing(name: str, threshold: float) -> Callable[[Conversation], Sequence[bool]]:
        flags = np.zeros(starts[-1], dtype=bool)
        flags[places] = values[name] < threshold
        return lambda one: flags[begin[id(one)] : begin[id(one)] + len(one.turns)].tolist()

    def row(name: str, asked: npt.NDArray[np.bool_]) -> tuple[list[str], float, float]:
        threshold, misses, trials = threshold_for(values[name][asked & ~check], np.ones(int((asked & ~check).sum()), dtype=bool))
        passed, some = values[name] < threshold, ~check & (group == "real")
        wrong, n = int((passed & asked & check).sum()), int((asked & check).sum())
        bound = clopper_pearson(wrong, n, CONFIDENCE, two_sided=False)[1]
        passes = passing(name, threshold)
        both = mix.cost(lambda one: simple_skips(one, passes(one), assistant_too=True))
        only = mix.cost(lambda one: simple_skips(one, passes(one), assistant_too=False))
        shares = [percent(float(passed[check & (group == which)].mean())) for which in ("real", "written")]
        cells = [f"{misses}/{trials}", f"{wrong}/{n} (≤ {percent(bound, 2)})", *shares, percent(both[0]), f"{1 / only[1]:.2f}", f"{1 / both[1]:.2f}"]
        return [name, *cells], threshold, float(passed[some] @ tokens[some] / tokens[some].sum())

    head = ["gate", "missed, choosing half", "missed, checking half (bound)", "real turns passed", "written", "of the mix skipped", "× user", "× both"]
    lines = [
        f"Model {monitor.model}; {len(training)} user turns to train on; validation: {len(conversations)} dialogues, {len(turns)} user turns, "
        f"{int(harmful.sum())} with harm or risk (label ≥ 0.5), {int((possible & ~harmful).sum())} more with a soft label. Checking half: "
        f"{len(mix.parts[0])} dialogues of {len(sources)} real sources without harm, {len(mix.parts[1])} that are not harmless.",
        "",
        f"A bound of {percent(LIMIT)} at {percent(CONFIDENCE, 0)} takes {conversations_needed(LIMIT, CONFIDENCE)} harmful turns with no miss, "
        f"{conversations_needed(LIMIT, CONFIDENCE, 5)} with five. × is transformer tokens without over with, in the mix, if every gate were free.",
        "",
        "**All turns with harm or risk**",
        "",
    ]
    found = {name: row(name, harmful) for name in values}
    lines += table(head, [cells for cells, _, _ in found.values()])
    best = max((name for name in found if name.removesuffix("; guarded") in bags), key=lambda name: found[name][2])
    lines += ["**Other readings of “miss”**, best single gate and ceiling", ""]
    readings = {
        "only the first of a conversation": harmful & fresh,
        "also soft labels": possible,
        "what the model itself sees (a label ≥ release), conversation calm": sees & fresh,
    }
    others = []
    loosest = found[best]
    for what, asked in readings.items():
        for name in (best, ceiling) if what[0] != "w" else (best,):
            reading_row = row(name, asked)
            others.append([what, *reading_row[0]])
            if name == best and reading_row[1] > loosest[1]:
                loosest = reading_row
    lines += table(["miss is", *head], others)

    # what five times would cost
    grid = np.quantile(values[best][np.isfinite(values[best])], np.linspace(0.0, 1.0, 401))
    enough = next((t for t in grid if 1 / mix.cost(lambda one, t=t: simple_skips(one, passing(best, t)(one), assistant_too=True))[1] >= WANTED_SPEED), None)  # type: ignore[misc]
    if enough is None:
        lines += [f"No threshold of “{best}” gives {WANTED_SPEED:.0f} times.", ""]
    else:
        let = (values[best] < enough) & check
        real, bad, first = (percent(float(let[check & which].mean())) for which in (group == "real", harmful, harmful & fresh))
        lines += [
            f"For {WANTED_SPEED:.0f} times, with assistant turns skipped too, “{best}” would have to pass {real} of real turns, and with them {bad} of turns "
            f"with harm or risk ({first} of the first in a conversation).",
            "",
        ]

    plays: dict[int, Play] = {}
    rows = []
    checked = [one for one in conversations if one.half == "check"]
    plain = {id(one): play(monitor, one, [False] * len(one.turns), assistant_too=False) for one in checked}
    settings = [("bound on all harm", best, found[best][1])]
    if loosest[1] > found[best][1]:
        settings.append(("loosest bound above", best, loosest[1]))
    if enough is not None:
        settings.append(("5 times", best, float(enough)))
    settings.append(("no gate: all that the model sees nothing in", ceiling, 1.0))
    for what, name, threshold in settings:
        for assistant_too in (False, True):
            passes, results = passing(name, threshold), {}
            with ThreadPoolExecutor(2) as pool:
                for one, result in zip(checked, pool.map(lambda one: play(monitor, one, passes(one), assistant_too=assistant_too), checked), strict=True):  # noqa: B023
                    results[id(one)] = result
            changed = {key for key in results if results[key].said != plain[key].said}
            ends = sum(("end" in {call for call, _ in results[key].said}) != ("end" in {call for call, _ in plain[key].said}) for key in results)
            gone = sum(len(set(plain[key].distress) - set(results[key].distress)) for key in results)
            skipped, left = mix.cost(lambda one: results[id(one)].skipped)  # noqa: B023
            same = mix.rate(lambda one: id(one) not in changed)  # noqa: B023
            several = [one for one in checked if sum(turn.message.role == "user" for turn in one.turns) > 1]
            many = sum(id(one) in changed for one in several)
            counts = [f"{len(changed)}/{len(checked)}", f"{many}/{len(several)}", str(ends)]
            lost = f"{gone}/{sum(len(one.distress) for one in plain.values())}"
            rows.append([what, "both" if assistant_too else "user", percent(skipped), f"{1 / left:.2f}", *counts, percent(same, 2), lost])
            print(rows[-1], flush=True)
            if what == settings[0][0] and assistant_too:
                plays = results
    columns = ["threshold", "skipped", "turns of the mix skipped", "×", "conversations decided otherwise", "of several user turns", "ends otherwise"]
    lines += [f"**Played** through the policy (enforce), checking half, “{best}”", ""]
    lines += table([*columns, "unchanged in the mix", "reports of distress lost"], rows)

    per_source: dict[str, list[bool]] = defaultdict(list)
    for (one, _), value in zip(users, values[best], strict=True):
        if one.group == "real" and one.half == "check":
            per_source[one.dialogue.source].append(bool(value < found[best][1]))
    ranked = sorted(((sum(flags) / len(flags), name) for name, flags in per_source.items()), reverse=True)
    lines += ["Passed, by source: " + ", ".join(f"{name} {percent(share, 0)}" for share, name in ranked) + ".", ""]
    if arguments.time:
        ratio, share, busy = measured(monitor, encoder, bags[best.removesuffix("; guarded")], mix, plays)
        lines += [
            f"Measured, one thread, interleaved (load average before: {busy:.2f}): × {ratio:.2f}; the gate takes {percent(share)} of the model's time.",
            "",
        ]
    if not renew(arguments.report, BEGIN, END, "\n\n" + "\n".join(lines) + "\n"):
        raise SystemExit(f"{arguments.report}: found no numbers block, expected {BEGIN} … {END}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
