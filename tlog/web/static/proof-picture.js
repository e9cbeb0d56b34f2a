// The picture of a proof: the path from an event, by the hashes beside it, to the root that the log signed.

import { encodeBase64, encodeHex } from "./bytes.js";
import { drawn, element } from "./element.js";
import { visibleText } from "./visible.js";

const BOX = { width: 112, height: 42 };
const STEP = { across: 124, down: 70 };
const MAX_TITLE = 16;
const WIDTH = 2 * STEP.across + BOX.width + 8;

/** Return the picture of what was found, as far as it goes, with `broken` the names of the checks that do not hold. */
export function proofPicture(found, broken) {
  const nodes = nodesOf(found, broken);
  const told = element("div", { class: "told" });
  const boxes = nodes.map((node) => boxOf(node));
  const tell = (place) => {
    boxes.forEach((box, other) => box.setAttribute("aria-pressed", String(other === place)));
    told.replaceChildren(...tellOf(nodes[place]));
  };
  boxes.forEach((box, place) => {
    box.addEventListener("focus", () => tell(place));
    box.addEventListener("click", () => tell(place));
  });
  tell(
    Math.max(
      nodes.findIndex((node) => node.isBroken),
      0,
    ),
  );
  const height = (Math.max(...nodes.map((node) => node.row)) + 1) * STEP.down;
  const label = "The path from the event to the signed root; each hash tells how it came";
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": label });
  svg.append(...nodes.flatMap((node) => node.to.map((next) => lineOf(node, next))), ...boxes);
  return element("div", { class: "proof" }, svg, told);
}

// Each node is { row, column, title, hash, how, to }, from the event down; `to` are the nodes that its hash goes into.
function nodesOf(found, broken) {
  const nodes = found.payload ? eventNodes(found, broken) : [];
  if (found.leaf) nodes.push(...pathNodes(found, broken, nodes));
  if (found.head) nodes.push(rootNode(found, broken, nodes));
  return nodes.length ? nodes : [node(0, 0, "Nothing", null, "nothing was found that could be drawn")];
}

function eventNodes({ payload, payloadType, opening, commitment }, broken) {
  const made = node(
    1,
    0,
    "Commitment",
    commitment ?? null,
    "SHA-256 of: tlog/commitment/v1, a newline, the opening, the length of the type, the type, the payload",
  );
  made.isBroken = broken.includes("commitment");
  const event = node(0, 0, "Payload", null, `${payload.length} bytes of ${payloadType}`, [made]);
  const beside = node(
    0,
    -1,
    "Opening",
    opening,
    "32 random bytes, without which nobody could guess a payload from its commitment",
    [made],
  );
  return [event, beside, made];
}

function pathNodes({ leaf, entry, rawEntry, steps = [], index }, broken, above) {
  const first = above.length ? 2 : 0;
  const how = `SHA-256 of: 0x00, the entry, which is ${new TextDecoder().decode(rawEntry)}`;
  const nodes = [node(first, 0, `Leaf ${index}`, leaf, how)];
  nodes[0].isBroken = broken.includes("leaf");
  if (entry && above.length) joinNodes(above.at(-1), nodes[0], broken.includes("commitment"));
  for (const [place, { sibling, result }] of steps.entries()) {
    const middle = sibling.isLeft ? sibling.high : sibling.low;
    const halves = [rangeName({ low: result.low, high: middle }), rangeName({ low: middle, high: result.high })];
    const made = `SHA-256 of: 0x01, the hash of ${halves[0]}, the hash of ${halves[1]}`;
    const next = node(first + place + 1, 0, rangeName(result), result.hash, made);
    joinNodes(
      nodes.findLast(({ column }) => column === 0),
      next,
    );
    const given = "from the inclusion proof that the server gave: it is right if the path leads to the signed root";
    nodes.push(node(first + place, sibling.isLeft ? -1 : 1, rangeName(sibling), sibling.hash, given, [next]), next);
  }
  return nodes;
}

function rootNode({ head }, broken, above) {
  const last = above.findLast(({ column }) => column === 0);
  const signed = node(
    last ? last.row + 1 : 0,
    0,
    "Signed root",
    head.root,
    `of ${head.size} entries of ${head.origin}, in the checkpoint that the log signed`,
  );
  signed.isRoot = true;
  signed.isBroken = ["inclusion", "consistency", "cosignatures"].some((name) => broken.includes(name));
  if (last) joinNodes(last, signed, broken.includes("inclusion"));
  return signed;
}

function node(row, column, title, hash, how, to = []) {
  return { row, column, title, hash, how, to: to.map((next) => ({ next, isBroken: false })), isBroken: false };
}

function joinNodes(from, next, isBroken = false) {
  from.to.push({ next, isBroken });
}

function rangeName({ low, high }) {
  return high - low === 1n ? `entry ${low}` : `entries ${low}–${high - 1n}`;
}

function placeOf({ row, column }) {
  return { x: 4 + (column + 1) * STEP.across, y: 4 + row * STEP.down };
}

function boxOf(node) {
  const { x, y } = placeOf(node);
  const title = shortened(node.title.replace(/^entries /, ""));
  const short = node.hash ? `${encodeBase64(node.hash).slice(0, 11)}…` : "";
  const kind = ["box", node.column === 0 ? "path" : "beside", node.isRoot && "root", node.isBroken && "broken"];
  const label = `${node.title}${node.hash ? `, ${encodeBase64(node.hash)}` : ""}${node.isBroken ? ", here it breaks" : ""}`;
  return drawn(
    "g",
    { class: kind.filter(Boolean).join(" "), role: "button", tabindex: 0, "aria-label": label },
    drawn("rect", { x, y, width: BOX.width, height: BOX.height, rx: 6 }),
    drawn(
      "text",
      { x: x + BOX.width / 2, y: y + (short ? 17 : 25), class: "title" },
      node.isBroken ? `✗ ${title}` : title,
    ),
    drawn("text", { x: x + BOX.width / 2, y: y + 33, class: "short" }, short),
  );
}

function shortened(title) {
  return title.length > MAX_TITLE ? `${title.slice(0, MAX_TITLE - 1)}…` : title;
}

function lineOf(from, { next, isBroken }) {
  const [a, b] = [placeOf(from), placeOf(next)];
  const [x1, y1, x2, y2] = [a.x + BOX.width / 2, a.y + BOX.height, b.x + BOX.width / 2, b.y];
  const path = drawn("path", {
    class: isBroken ? "line broken" : "line",
    d: `M${x1} ${y1}C${x1} ${y1 + 16} ${x2} ${y2 - 16} ${x2} ${y2}`,
  });
  if (!isBroken) return path;
  return drawn("g", {}, path, drawn("text", { x: (x1 + x2) / 2 + 14, y: (y1 + y2) / 2 + 5, class: "unequal" }, "≠"));
}

function tellOf({ title, hash, how, isBroken }) {
  const told = [element("h3", {}, isBroken ? `${title}: here it breaks` : title)];
  if (hash) {
    const [base64, hex] = [encodeBase64(hash), encodeHex(hash)];
    told.push(element("dl", {}, fact("Base64", base64), fact("Hex", hex, "hex")));
  }
  return [...told, element("p", {}, visibleText(how))];
}

function fact(name, value, kind) {
  return element("div", { class: kind }, element("dt", {}, name), element("dd", { class: "hash" }, value));
}
