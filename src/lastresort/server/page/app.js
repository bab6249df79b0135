// The page: what people do, one thing after the other. Everything is kept in memory and gone with the page.
import { call, Refused } from "./api.js";
import { parse } from "./transcript.js";
import { messages, Tree } from "./tree.js";
import { conversation, counters, decided, h, standing } from "./view.js";

const $ = (id) => document.getElementById(id);
const MODES = {
  shadow: "Mode shadow: decisions are recorded and nothing is done. What enforce would do is shown as withheld.",
  advise: "Mode advise: warnings reach the user, an end does not.",
  enforce: "Mode enforce: warnings and ends act.",
};
const ANSWERS = {
  none: "Of course. What would you like to know?",
  redirect: "I won't go along with that. I'm glad to help with something else. What do you need?",
  warn: "This is a warning: if this goes on, I will end this conversation. I would rather help you with something.",
  confirm: "Do you want me to end this conversation? Say yes, and I will.",
  support: "I'm glad that you told me. You don't have to go through this alone. Is there somebody near you, or a crisis line, whom you could reach now?",
};
const LARGEST = 20e6; // characters of a transcript
const MOST = 500; // dialogues of a file that are offered
const context = { reasons: {}, thresholds: {}, mode: "" };
const offered = []; // dialogues behind the options of the picker
let tree = new Tree();
let busy = false;

function askForKey(wrong) {
  const dialog = $("ask");
  $("ask-wrong").textContent = wrong ? "That key is not known here." : "";
  $("key").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const done = (value) => {
      $("key").value = "";
      dialog.close();
      resolve(value);
    };
    $("ask-form").onsubmit = (event) => (event.preventDefault(), done($("key").value.trim()));
    $("ask-cancel").onclick = () => done(null);
    dialog.oncancel = (event) => (event.preventDefault(), done(null));
  });
}

/** Does one thing at a time; says what went wrong. */
async function doing(work) {
  if (busy) return;
  busy = true;
  $("problem").textContent = "";
  $("talk").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").scrollIntoView({ block: "nearest" });
    if (!(error instanceof Refused) && error.constructor !== Error) console.error(error);
  } finally {
    busy = false;
    $("talk").removeAttribute("aria-busy");
  }
}

function render(focus) {
  const line = tree.line();
  const ended = line.some((node) => node.turn.decision?.call === "end");
  const key = focus ?? document.activeElement?.dataset?.key;
  $("turns").replaceChildren(...conversation(line, context, act));
  $("counts").replaceChildren(counters(line));
  $("now").textContent = standing(line, context.reasons);
  $("say").hidden = ended;
  $("suggest").hidden = role() !== "assistant";
  (key && ($("turns").querySelector(`[data-key="${key}"]`) ?? $(key)))?.focus();
}

function role() {
  return document.querySelector("[name=role]:checked").value;
}

function speakAs(name) {
  document.querySelector(`[name=role][value=${name}]`).checked = true;
  $("suggest").hidden = name !== "assistant";
}

/** After a turn: the other side speaks next, and the focus is where people go on. */
function goOn() {
  const head = tree.head();
  for (const node of tree.line()) node.open = node === head;
  speakAs(head.role === "user" ? "assistant" : "user");
  const ended = head.turn?.decision?.call === "end";
  render(ended ? "ended" : "text");
  if (!ended) $("say").scrollIntoView({ block: "nearest" });
}

/** Adds a turn after `parent`: with the state after it if that is known, else with all messages from the start. */
async function add(parent, speaker, content) {
  const message = { role: speaker, content };
  const body = parent.state === null && parent.parent ? { messages: [...messages(parent), message] } : { message, state: parent.state };
  const answer = await call("v1/decide", body, askForKey);
  return tree.add(parent, speaker, content, answer.turns.at(-1), answer.state);
}

/** Shows a dialogue beside the conversation so far, which stays reachable as another version of message #0. */
async function open(dialogue) {
  const answer = await call("v1/decide", { messages: dialogue.messages }, askForKey);
  let head = tree.root;
  dialogue.messages.forEach(({ role: speaker, content }, place) => {
    head = tree.add(head, speaker, content, answer.turns[place], place === dialogue.messages.length - 1 ? answer.state : null);
  });
  goOn();
}

const act = {
  begin(node) {
    for (const other of tree.line()) other.editing = other === node;
    render("editor");
  },
  cancel(node) {
    node.editing = false;
    render(`edit${node.index}`);
  },
  edit: (node, content) =>
    doing(async () => {
      await add(node.parent, node.role, content);
      node.editing = false;
      goOn();
    }),
  turnTo: (node, step) =>
    doing(async () => {
      tree.turnTo(node, step);
      render();
    }),
  fresh: () =>
    doing(async () => {
      tree = new Tree();
      speakAs("user");
      render("text");
    }),
};

function offer(name, dialogues) {
  const options = dialogues.slice(0, MOST).map((dialogue) => h("option", { value: offered.push(dialogue) - 1 }, dialogue.about ?? dialogue.id));
  const group = h("optgroup", { label: dialogues.length > MOST ? `${name} (the first ${MOST})` : name }, options);
  $("scenario").append(group);
  return options[0];
}

async function load(text, name) {
  if (text.length > LARGEST) throw new Error(`${name}: found ${text.length} characters, expected at most ${LARGEST}.`);
  const dialogues = parse(text);
  if (dialogues.length > 1) offer(name, dialogues).selected = true;
  await open(dialogues[0]);
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = $("text").value;
  if (!content.trim()) return $("text").focus();
  doing(async () => {
    await add(tree.head(), role(), content);
    if ($("text").value === content) $("text").value = ""; // else somebody typed on meanwhile
    goOn();
  });
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say").requestSubmit();
});
$("say").addEventListener("change", () => ($("suggest").hidden = role() !== "assistant"));
$("suggest").addEventListener("click", () => {
  const decision = tree
    .line()
    .filter((node) => node.role === "user")
    .at(-1)?.turn.decision;
  $("text").value = ANSWERS[decision ? decided(decision).advice : "none"];
  $("text").focus();
});
$("play").addEventListener("submit", (event) => {
  event.preventDefault();
  const dialogue = offered[$("scenario").value];
  if (dialogue) doing(() => open(dialogue));
});
$("new").addEventListener("click", act.fresh);
$("paste").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(() => load($("transcript").value, "Pasted"));
});
$("file").addEventListener("change", () =>
  doing(async () => {
    const file = $("file").files[0];
    if (!file) return;
    if (file.size > 4 * LARGEST) throw new Error(`${file.name}: found ${file.size} bytes, expected at most ${4 * LARGEST}.`);
    await load(await file.text(), file.name);
    $("file").value = "";
  }),
);
$("turns").addEventListener("click", (event) => {
  const target = event.target.closest("a[href^='#m']");
  if (!target) return;
  event.preventDefault();
  document.querySelector(target.getAttribute("href"))?.focus();
});

doing(async () => {
  const [info, data] = await Promise.all([call("info", undefined, askForKey), call("page/data.json", undefined, askForKey)]);
  Object.assign(context, { reasons: data.reasons, thresholds: info.thresholds, mode: info.mode });
  $("about").replaceChildren(h("code", {}, info.model), " ", h("span", { className: "badge" }, info.mode));
  $("mode").textContent = MODES[info.mode] ?? "";
  for (const group of data.groups) offer(group.name, group.dialogues);
  render("text");
});
