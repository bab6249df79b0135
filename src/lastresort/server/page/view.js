// Makes elements out of turns and decisions. Whatever people or the service wrote is set as text, never as markup.

/** An element: `properties` are set on it (`data` as data attributes, `aria` as aria ones), children are nodes or text. */
export function h(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const COUNTS = {
  redirections: "redirections of harmful turns",
  grave_redirections: "of them after a grave turn",
  warnings: "warnings",
  quiet_turns: "quiet turns; then all is forgotten",
  calm_turns: "calm turns; then the risk is lifted",
};
const SEEN = {
  warn: "Please stop. If messages like this go on, this conversation will be ended. You can edit an earlier message or start a new conversation at any time.",
  confirm: "Do you want to end this conversation?",
  end: "This conversation has ended, and no further message can be sent here. You can edit an earlier message or start a new conversation.",
  wish: "This conversation has ended, as you asked. You can start a new one at any time.",
};

/** What the rules decided, whatever the mode let through. */
export function decided(decision) {
  const { call, advice, would_call: heldCall, would_advise: heldAdvice } = decision;
  return { call: heldCall ?? call, advice: heldAdvice ?? advice, withheld: Boolean(heldCall ?? heldAdvice) };
}

/** A decision in one line: what is to be done, and why in words. */
export function verdict(decision, reasons) {
  const { call, advice } = decided(decision);
  return { what: call === "end" ? "end" : advice === "none" ? "goes on" : advice, why: reasons[decision.reason] ?? decision.reason };
}

function bar(label, score, threshold) {
  const reached = threshold !== undefined && score >= threshold;
  const fill = h("span", { className: "fill" });
  fill.style.width = `${100 * score}%`;
  const track = h("span", { className: "track", aria: { hidden: "true" } }, fill);
  if (threshold !== undefined) {
    const tick = h("span", { className: "tick" });
    tick.style.left = `${100 * threshold}%`;
    track.append(tick);
  }
  const limit = threshold === undefined ? "reported only" : `${reached ? "≥" : "<"} ${threshold.toFixed(2)}`;
  const number = h("span", { className: "number" }, `${score.toFixed(2)} `, h("small", {}, limit));
  return h("li", { className: reached ? "reached" : "" }, h("span", { className: "label" }, label), track, number);
}

function bars(entries, thresholds, name) {
  const rows = entries.map(([label, score]) => bar(label, score, thresholds[label]));
  return h("ul", { className: "bars", aria: { label: name } }, rows);
}

/** A button that keeps the focus over a new rendering by its key; `label` where its text says too little. */
function button(text, key, onclick, label = text) {
  return h("button", { type: "button", onclick, data: { key }, aria: { label } }, text);
}

function why(node, context) {
  const { decision, scores } = node.turn;
  const rows = [];
  const row = (name, ...value) => rows.push(h("dt", {}, name), h("dd", {}, ...value));
  if (decision) {
    const category = decision.category ? [" (", h("code", {}, decision.category), ")"] : [];
    row("Reason", h("code", {}, decision.reason), ` ${context.reasons[decision.reason] ?? ""}`, ...category);
    const { call, advice, withheld } = decided(decision);
    const through = ` – mode ${context.mode} lets through: call ${decision.call}, advice ${decision.advice}`;
    row("Decided", `call ${call}, advice ${advice}`, withheld ? h("span", { className: "withheld" }, through) : null);
    const compared = ([label, [found, needed]]) => h("li", {}, `${label} ${found.toFixed(2)} ${found >= needed ? "≥" : "<"} ${needed.toFixed(2)}`);
    const numbers = Object.entries(decision.numbers).map(compared);
    if (numbers.length) row("Weighed", h("ul", {}, numbers));
    const evidence = decision.evidence.flatMap((index) => [h("a", { href: `#m${index}` }, `#${index}`), " "]);
    if (evidence.length) row("Evidence", ...evidence);
    if (decision.counterfactual) row("Otherwise with", decision.counterfactual);
  }
  const all = Object.entries(scores);
  const scored = all.length ? h("details", {}, h("summary", {}, `All ${all.length} scores`), bars(all, context.thresholds, "All scores")) : null;
  const summary = h("summary", { data: { key: `why${node.index}` } }, "Why");
  const details = h("details", { className: "why", open: node.open ?? false }, summary, h("dl", {}, rows), scored);
  details.addEventListener("toggle", () => (node.open = details.open));
  return details;
}

/** The labels to show at once: the one that decided, those at their threshold, then those that the policy reads, the highest first; three at most, one at least. */
function notable(scores, thresholds, category) {
  const reached = (label) => scores[label] >= (thresholds[label] ?? Infinity);
  const rank = (label) => 4 * (label === category) + 2 * reached(label) + (label in thresholds);
  const all = Object.entries(scores).sort(([a, x], [b, y]) => rank(b) - rank(a) || y - x);
  return all.filter(([label, score], place) => place === 0 || (place < 3 && (reached(label) || score >= 0.2)));
}

function editor(node, act) {
  const text = h("textarea", { value: node.content, rows: 3, data: { key: "editor" }, aria: { label: `Edit message #${node.index}` } });
  const save = h("button", { className: "primary" }, "Branch from here");
  const row = h(
    "div",
    { className: "row" },
    save,
    button("Cancel", "cancel", () => act.cancel(node)),
  );
  const form = h("form", { className: "editor" }, text, row);
  form.addEventListener("submit", (event) => (event.preventDefault(), act.edit(node, text.value)));
  form.addEventListener("keydown", (event) => event.key === "Escape" && act.cancel(node));
  return form;
}

function turn(node, context, act) {
  const { decision, scores } = node.turn;
  const siblings = node.parent.children;
  const head = [h("span", { className: "who" }, `#${node.index} ${node.role}`)];
  if (siblings.length > 1) {
    const step = (by, sign, name) => button(sign, `${name}${node.index}`, () => act.turnTo(node, by), `${name} version of message #${node.index}`);
    const place = ` ${siblings.indexOf(node) + 1} of ${siblings.length} `;
    head.push(h("span", { className: "versions" }, step(-1, "‹", "previous"), place, step(1, "›", "next")));
  }
  head.push(button("Edit", `edit${node.index}`, () => act.begin(node), `Edit message #${node.index}`));
  const parts = [h("div", { className: "head" }, head), node.editing ? editor(node, act) : h("p", { className: "text" }, node.content || "(empty)")];
  const shown = notable(scores, context.thresholds, decision?.category);
  if (shown.length) parts.push(bars(shown, context.thresholds, `Scores of message #${node.index}`));
  if (decision) {
    const { what, why: words } = verdict(decision, context.reasons);
    parts.push(h("p", { className: `verdict ${what.replace(" ", "-")}` }, h("strong", {}, what), ` – ${words}`), why(node, context));
  } else parts.push(h("p", { className: "verdict" }, "carried, not scored"));
  return h("li", { className: `turn ${node.role}`, id: `m${node.index}`, tabIndex: -1 }, parts);
}

function notice(kind, text, withheld, context, more = null) {
  const caption = withheld ? `What the user would see in mode enforce (withheld: this is mode ${context.mode})` : "What the user sees";
  const properties = { className: `notice ${kind}${withheld ? " held" : ""}`, tabIndex: -1, data: { key: kind } };
  return h("li", properties, h("p", { className: "caption" }, caption), h("p", {}, text), more);
}

/** What the user of a chat meets after a turn, or null: the warning, the question, the end. */
function met(node, context, act, last) {
  const { decision } = node.turn;
  if (!decision || decision.reason === "already_ended") return null;
  const { call, advice } = decided(decision);
  if (call === "end") {
    const ways = [button("Edit that message", "ended-edit", () => act.begin(node)), button("New conversation", "ended-new", act.fresh)];
    const held = decision.call !== "end";
    return notice("ended", decision.reason === "end_confirmed" ? SEEN.wish : SEEN.end, held, context, last ? h("div", { className: "row" }, ways) : null);
  }
  return advice in SEEN ? notice(advice === "warn" ? "warning" : "question", SEEN[advice], decision.advice !== advice, context) : null;
}

/** The list of turns with what the user meets between them. */
export function conversation(line, context, act) {
  if (!line.length) return [h("li", { className: "hint" }, "Nothing said yet. Write as the user, then as the assistant – or play a scenario.")];
  const ended = line.findIndex((node) => node.turn.decision?.call === "end");
  return line.flatMap((node, place) => {
    const item = turn(node, context, act);
    if (ended >= 0 && place > ended) item.classList.add("after");
    return [item, met(node, context, act, ended === place)].filter(Boolean);
  });
}

/** The counters after the newest decision that has some. */
export function counters(line) {
  const decisions = line.map((node) => node.turn.decision).filter((one) => one && one.reason !== "already_ended");
  const counts = Object.entries(decisions.at(-1)?.counts ?? {});
  const risk = "Somebody may be at risk: nothing counts towards a warning or an end.";
  if (!counts.length) return h("p", { className: "hint" }, decisions.length ? risk : "Redirections and warnings are counted from the first message on.");
  const rows = counts.flatMap(([name, [found, needed]]) => {
    const pips = Array.from({ length: needed }, (_, place) => h("span", { className: place < found ? "pip on" : "pip" }));
    return [h("dt", {}, COUNTS[name] ?? name), h("dd", {}, h("span", { aria: { hidden: "true" } }, pips), ` ${found} of ${needed}`)];
  });
  return h("dl", { className: "counts" }, rows);
}

/** Where the conversation stands, in one line for the live region. */
export function standing(line, reasons) {
  const node = line.filter((one) => one.turn.decision).at(-1);
  if (!node) return "";
  const ended = line.find((one) => one.turn.decision?.call === "end");
  if (ended) return `Ended at message #${ended.index}: ${verdict(ended.turn.decision, reasons).why}.`;
  const { what, why: words } = verdict(node.turn.decision, reasons);
  const { call, withheld } = decided(node.turn.decision);
  return `#${node.index} ${node.role}: ${withheld && call === "end" ? "would end" : what} – ${words}.`;
}
