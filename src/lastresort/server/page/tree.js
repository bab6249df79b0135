// A conversation with its branches: an edit makes a sibling, and every sibling stays reachable.
export class Tree {
  constructor() {
    this.root = { parent: null, children: [], active: null, index: -1, state: null };
  }

  /** A new turn after `parent`, on the line that is shown. `turn` is the service's answer on it, `state` the state after it (null: not known). */
  add(parent, role, content, turn, state) {
    const node = { parent, role, content, turn, state, children: [], active: null, index: parent.index + 1 };
    parent.children.push(node);
    parent.active = node;
    return node;
  }

  /** The turns of the line that is shown. */
  line() {
    const found = [];
    for (let node = this.root.active; node; node = node.active) found.push(node);
    return found;
  }

  /** The last turn of that line, or the root. */
  head() {
    return this.line().at(-1) ?? this.root;
  }

  /** Shows the sibling that is `step` places away. */
  turnTo(node, step) {
    const all = node.parent.children;
    node.parent.active = all[(all.indexOf(node) + step + all.length) % all.length];
  }
}

/** The messages from the first to `node`. */
export function messages(node) {
  const found = [];
  for (; node.parent; node = node.parent) found.unshift({ role: node.role, content: node.content });
  return found;
}
