// lastresort from Node.js: the same scores as in Python, from the same model folder. See src/lastresort/server/RECIPES.md.
//
//     node score.mjs MODEL_FOLDER [DIALOGUES.jsonl]        # "-" or nothing: standard input; JSON lines on standard output
//
// Beside the model folder it needs emoji.json, which is looked for in src/lastresort of this checkout (EMOJI_FILE).

import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { InferenceSession, Tensor } from "onnxruntime-node";

const TOKEN_TYPE = { user: 0n, assistant: 1n, system: null, tool: null }; // the speaker, told to the encoder as BERT's segment id; null: carried
const EMOJI_FILE = fileURLToPath(new URL("../../src/lastresort/emoji.json", import.meta.url));

// As in src/lastresort/encoding.py. JavaScript's \w knows ASCII only and its \s lacks some of Python's; the dotted and dotless i and the iota are letters that
// Python takes for one of the range when it ignores case.
const INVISIBLE =
  /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\uffa0\ufe00-\ufe0f\ufeff\u{e0000}-\u{e007f}]/gu;
const URL_ = /(?:[Hh][Tt][Tt][Pp][Ss]?:\/\/|(?<![\p{L}\p{N}_])[Ww]{3}\.(?=[A-Za-z0-9\u0130\u0131]))[!-~\u0130\u0131][!-~\u0300-\u036f\u0130\u0131\u0399\u03b9]*/gu;
const HANDLE = /(?<![\p{L}\p{N}_.])@[A-Za-z0-9_][A-Za-z0-9_\u0300-\u036f]+/gu;
const LONG = /([^\s\x1c-\x1f\x85]{100})(?=[^\s\x1c-\x1f\x85])/gu;
const FAR_IDEOGRAPH = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu; // the tokenizer package parts only the nearer ones
const SPACE = /[\s\x1c-\x1f\x85]+/gu;
const EMOJI = JSON.parse(readFileSync(EMOJI_FILE, "utf8")); // also flags of two regional indicators; a skin tone has an empty name
const single = Object.keys(EMOJI).filter((emoji) => [...emoji].length === 1);
const SKIN_TONE = new RegExp(`[${single.filter((emoji) => !EMOJI[emoji]).join("")}]`, "gu");
const EMOJIS = new RegExp(`[\\u{1f1e6}-\\u{1f1ff}]{2}|[${single.filter((emoji) => EMOJI[emoji]).join("")}]`, "gu");
const nameOf = (emoji) => ` ${EMOJI[emoji] ?? Array.from(emoji, (c) => EMOJI[c]).join(" ")} `;

/** Text as the model sees it: see `normalise` in src/lastresort/encoding.py. */
export function normalise(text, emojiNames = false) {
  text = text.replace(/\p{Surrogate}/gu, "\ufffd").replace(INVISIBLE, "");
  if (emojiNames) text = text.replace(SKIN_TONE, "").replace(EMOJIS, nameOf);
  text = text.normalize("NFKC");
  for (;;) {
    text = text.replace(URL_, "<url>").replace(HANDLE, "@user");
    const broken = text.replace(LONG, "$1 ");
    if (broken === text) break;
    text = broken;
  }
  return text.replace(SPACE, " ").trim();
}

/** Scores turns; holds the model and never a conversation. */
export class Scorer {
  /** Verifies and loads a model folder. */
  static async load(folder) {
    const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
    if (manifest.format_version !== 1) throw new Error(`manifest.json: format_version: found ${manifest.format_version}, expected 1`);
    for (const name of ["model.onnx", "tokenizer.json"]) {
      const found = createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");
      if (found !== manifest.files[name]) throw new Error(`${name}: found sha256 ${found.slice(0, 12)}…, expected ${manifest.files[name]?.slice(0, 12)}…`);
    }
    const options = { executionProviders: ["cpu"], intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 };
    return new Scorer(manifest, JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")), await InferenceSession.create(join(folder, "model.onnx"), options));
  }

  constructor(manifest, tokenizer, session) {
    const special = new Set(tokenizer.added_tokens.filter((token) => token.special).map((token) => token.content));
    const kept = tokenizer.added_tokens.filter((token) => !special.has(token.content)); // "[SEP]" in a turn is text, not a token
    this.manifest = manifest;
    this.session = session;
    this.tokenizer = new Tokenizer({ ...tokenizer, added_tokens: kept, truncation: null, padding: null }, {});
    this.ideographs = tokenizer.normalizer?.handle_chinese_chars === true;
    this.lowercase = tokenizer.normalizer?.lowercase === true;
    this.cls = tokenizer.model.vocab["[CLS]"];
    this.sep = tokenizer.model.vocab["[SEP]"];
  }

  /** The memory before the first turn. */
  start() {
    return new Float32Array(this.manifest.memory_size);
  }

  /** Token ids of each window; at least one. */
  windows(text) {
    text = normalise(text, this.manifest.encoding.emoji_names);
    if (this.ideographs) text = text.replace(FAR_IDEOGRAPH, " $& ");
    if (this.lowercase) text = Array.from(text, (c) => c.toLowerCase()).join(""); // by letters: a whole word would get a final sigma
    const ids = this.tokenizer.encode(text, { add_special_tokens: false }).ids;
    const { max_tokens, overlap_tokens } = this.manifest.encoding;
    const budget = max_tokens - 2;
    const windows = [];
    for (let start = 0; start < Math.max(1, ids.length - overlap_tokens); start += budget - overlap_tokens)
      windows.push([this.cls, ...ids.slice(start, start + budget), this.sep]);
    return windows;
  }

  /** One turn: { scores, windows, memory }. Memory flows through the windows, each label keeps its highest score. System and tool turns are carried. */
  async score(role, text, memory) {
    if (!Object.hasOwn(TOKEN_TYPE, role)) throw new Error(`role: found ${JSON.stringify(role)}, expected one of ${Object.keys(TOKEN_TYPE).join(", ")}`);
    if (TOKEN_TYPE[role] === null) return { scores: {}, windows: 0, memory };
    const windows = this.windows(text);
    const best = new Float32Array(this.manifest.labels.length);
    for (const ids of windows) {
      const tokens = (values) => new Tensor("int64", BigInt64Array.from(values), [1, ids.length]);
      const { probabilities, new_memory } = await this.session.run({
        input_ids: tokens(ids.map(BigInt)),
        attention_mask: tokens(ids.map(() => 1n)),
        token_type_ids: tokens(ids.map(() => TOKEN_TYPE[role])),
        memory: new Tensor("float32", memory, [1, memory.length]),
      });
      if (![...probabilities.data, ...new_memory.data].every(Number.isFinite)) throw new Error("found numbers that are not finite: nothing may be decided on them");
      probabilities.data.forEach((value, column) => (best[column] = Math.max(best[column], value)));
      memory = new_memory.data;
    }
    const own = this.manifest.labels.map((label, column) => [label, best[column]]).filter(([label]) => label.speaker === role);
    return { scores: Object.fromEntries(own.map(([label, value]) => [label.name, value])), windows: windows.length, memory };
  }
}

async function main([folder, input = "-"]) {
  if (folder === undefined) throw new Error("usage: node score.mjs MODEL_FOLDER [DIALOGUES.jsonl]");
  const scorer = await Scorer.load(folder);
  for await (const line of createInterface({ input: input === "-" ? process.stdin : createReadStream(input), crlfDelay: Infinity })) {
    if (!line.trim()) continue;
    const { id, messages } = JSON.parse(line);
    let memory = scorer.start();
    const turns = [];
    for (const [index, { role, content }] of messages.entries()) {
      const turn = await scorer.score(role, content, memory).catch((error) => {
        throw new Error(`${id}: messages.${index}: ${error.message}`);
      });
      memory = turn.memory;
      turns.push({ index, role, scores: turn.scores, windows: turn.windows });
    }
    process.stdout.write(`${JSON.stringify({ id, turns })}\n`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
