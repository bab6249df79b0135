// Reads transcripts: a dialogue, a list of messages or of dialogues as JSON, or one dialogue a line. Errors say where, never what was written.
const ROLES = ["user", "assistant", "system", "tool"];

/** The dialogues of a text as `{id, messages: [{role, content}]}`. Throws an `Error` for people. */
export function parse(text) {
  if (!text.trim()) throw new Error("Found nothing, expected a transcript.");
  const whole = json(text);
  if (whole !== undefined) {
    if (!Array.isArray(whole)) return [dialogue(whole, "transcript", 1)];
    if (!whole.length) throw new Error("Found an empty list, expected messages or dialogues.");
    if (isObject(whole[0]) && "role" in whole[0]) return [dialogue({ messages: whole }, "transcript", 1)];
    return whole.map((item, place) => dialogue(item, `item ${place + 1}`, place + 1));
  }
  const found = [];
  text.split("\n").forEach((line, place) => {
    if (!line.trim()) return;
    const item = json(line);
    if (item === undefined) throw new Error(`line ${place + 1}: found no valid JSON, expected one dialogue a line.`);
    found.push(dialogue(item, `line ${place + 1}`, place + 1));
  });
  return found;
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function dialogue(item, where, number) {
  if (!isObject(item)) throw new Error(`${where}: expected a dialogue, an object with messages.`);
  if (!Array.isArray(item.messages) || !item.messages.length) throw new Error(`${where}: messages: expected a list with at least one message.`);
  const messages = item.messages.map((message, place) => {
    const field = `${where}: messages.${place}`;
    if (!isObject(message)) throw new Error(`${field}: expected an object with role and content.`);
    if (!ROLES.includes(message.role)) throw new Error(`${field}.role: expected one of ${ROLES.join(", ")}.`);
    if (typeof message.content !== "string") throw new Error(`${field}.content: expected text.`);
    return { role: message.role, content: message.content };
  });
  return { id: typeof item.id === "string" && item.id ? item.id : `dialogue ${number}`, messages };
}
