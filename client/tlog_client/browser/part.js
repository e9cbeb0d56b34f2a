// A part of an evidence bundle: entries of one segment, with their payloads and openings, a line of each file for each
// (spec/bundle.md, "Members").
//
// Ten thousand are verified while somebody waits: so nearly every line is held against a pattern where it stands, hashes are
// compared as bytes, and nothing is made of a line that nobody asks for.

import { decodeBase64, decodeText, encodeText, equalBytes } from "./bytes.js";
import { MAX_ENTRY_BYTES, MAX_WRITER_BYTES, parseEntry } from "./entry.js";
import { MalformedError, RefusedError } from "./errors.js";
import { HASH_BYTES } from "./hashes.js";
import { canonicalText, exactMembers, numberMember, parseJson, textMember } from "./json.js";
import { atPlace, placed } from "./place.js";
import { Hasher } from "./sha256.js";

const MAX_PART_ENTRIES = 1_000_000;
const MAX_TYPE_BYTES = 255;
const JSON_PAYLOAD = "application/json";
const TICK_LINES = 128;
const TEXT_BYTES = 1 << 16;

const LATIN = new TextDecoder("latin1");
const NEWLINE = 10;
const QUOTE = 34;
const LEAF_PREFIX = Uint8Array.of(0);
const COMMITMENT_CONTEXT = encodeText("tlog/commitment/v1\n");
const BASE64_VALUES = base64Values();

const HASH_TEXT = "[+/-9A-Za-z]{42}[AEIMQUYcgkosw048]=";
const HASH_CHARACTERS = 44;
const PLAIN_TEXT = "([ !#-\\[\\]-~]+)";
const PLAIN_NUMBER = "(0|[1-9][0-9]{0,14})";
// Nearly all lines, in their only form: with ASCII in which nothing is escaped. Others are parsed, slowly.
const OPENING_LINE = new RegExp(
  `\\{"index":${PLAIN_NUMBER},"leaf":"${HASH_TEXT}","opening":"${HASH_TEXT}","payload_type":"${PLAIN_TEXT}"\\}`,
  "y",
);
const ENTRY_LINE = new RegExp(
  `\\{"commitment":"${HASH_TEXT}","origin":"${PLAIN_TEXT}","time":${PLAIN_NUMBER},"v":1,"writer":"${PLAIN_TEXT}"\\}`,
  "y",
);
const BEFORE_INDEX = '{"index":'.length;
const BEFORE_LEAF = ',"leaf":"'.length;
const BEFORE_OPENING = '","opening":"'.length;
const BEFORE_COMMITMENT = '{"commitment":"'.length;

/**
 * Return { indexes, leaves, times } of a part, after checking that each entry is of this log and commits to its payload.
 *
 * Raises MalformedError or RefusedError, with its `place`. `progress` is { done, all, tick }, in bytes.
 */
export async function readRows(part, origin, progress) {
  const [openings, entries, events] = [part.openings, part.entries, part.events].map((raw) => new Lines(raw));
  const count = atPlace(`${part.name}/openings.ndjson`, () => countLines(part.openings));
  const rows = new Rows(origin);
  const [indexes, leaves, times] = [[], [], []];
  // Not `atPlace` for each line: the places of all are much to write, and then nobody asks for them.
  let line = null;
  try {
    while (indexes.length < count) {
      line = null;
      line = openingOf(openings.next());
      const [entry, event] = [entries.next().bytes(), events.next().bytes()];
      leaves.push(rows.verifyLeaf(entry, line));
      times.push(rows.verifyRow(entries, event, line));
      if (times.at(-1) < times.at(-2)) refuseRow("it is older than the entry before it");
      indexes.push(line.index);
      progress.done += entry.length + event.length;
      if (indexes.length % TICK_LINES === 0) await progress.tick(progress.done / progress.all);
    }
  } catch (error) {
    const number = `line ${indexes.length + 1}`;
    const place = line === null ? `openings.ndjson, ${number}` : `entries.ndjson, ${number}, entry ${line.index}`;
    throw placed(error, `${part.name}/${place}`);
  }
  for (const [file, lines] of [["entries.ndjson", entries], ["events.ndjson", events]]) {
    if (!lines.isWhole()) {
      atPlace(`${part.name}/${file}`, () => refuseLine("it has not as many lines as there are openings"));
    }
  }
  return { indexes, leaves, times };
}

/** Return the line of a file of a part, counted from 0, as bytes. */
export function lineOf(raw, number) {
  let start = 0;
  for (; number > 0; number -= 1) start = raw.indexOf(NEWLINE, start) + 1;
  return raw.subarray(start, raw.indexOf(NEWLINE, start));
}

function countLines(raw) {
  if (raw.length > 0 && raw.at(-1) !== NEWLINE) refuseLine("the last line does not end in a newline");
  let count = 0;
  for (let place = raw.indexOf(NEWLINE); place >= 0; place = raw.indexOf(NEWLINE, place + 1)) count += 1;
  if (count === 0 || count > MAX_PART_ENTRIES) refuseLine(`a part of a bundle has 1 to ${MAX_PART_ENTRIES} entries`);
  return count;
}

// The lines of a file, of which one is looked at, from `start` to before `end`.
class Lines {
  // Of a piece of the file, each character a byte: only for what a pattern of ASCII is then held against.
  #text = "";
  #textStart = 0;

  constructor(raw) {
    this.raw = raw;
    this.start = 0;
    this.end = -1;
  }

  // A line that is not there is none without bytes: then the file is not whole.
  next() {
    this.start = this.end + 1;
    const found = this.raw.indexOf(NEWLINE, this.start);
    this.end = found < 0 ? this.raw.length : found;
    return this;
  }

  bytes() {
    return this.raw.subarray(this.start, this.end);
  }

  match(pattern) {
    if (this.end > this.#textStart + this.#text.length) this.#decode();
    pattern.lastIndex = this.start - this.#textStart;
    const found = pattern.exec(this.#text);
    return pattern.lastIndex === this.end - this.#textStart ? found : null;
  }

  #decode() {
    this.#textStart = this.start;
    this.#text = LATIN.decode(this.raw.subarray(this.start, Math.max(this.end, this.start + TEXT_BYTES)));
  }

  // All was read, and ended in a newline.
  isWhole() {
    return this.end + 1 === this.raw.length;
  }
}

function openingOf(lines) {
  const simple = lines.match(OPENING_LINE);
  if (simple === null) return parseOpening(lines.bytes());
  const [, index, type] = simple;
  const leaf = lines.start + BEFORE_INDEX + index.length + BEFORE_LEAF;
  const opening = leaf + HASH_CHARACTERS + BEFORE_OPENING;
  return { index: Number(index), leaf: hashAt(lines.raw, leaf), opening: hashAt(lines.raw, opening), type };
}

function parseOpening(raw) {
  const members = exactMembers(parseJson(raw), ["index", "leaf", "opening", "payload_type"]);
  if (canonicalText(members) !== decodeText(raw, "a line")) refuseLine("the line is not canonical");
  const [leaf, opening] = ["leaf", "opening"].map((name) => decodeBase64(textMember(members, name), HASH_BYTES));
  return { index: numberMember(members, "index"), leaf, opening, type: textMember(members, "payload_type") };
}

class Rows {
  #hasher = new Hasher();
  #origin;
  #type = null;
  #framed;

  constructor(origin) {
    this.#origin = origin;
  }

  verifyLeaf(entry, line) {
    const leaf = this.#hasher.start().add(LEAF_PREFIX).add(entry).digest();
    if (!equalBytes(leaf, line.leaf)) refuseRow("the entry has not the leaf hash that stands beside it");
    return leaf;
  }

  // Return the time of the entry, which is of this log and commits to its payload.
  verifyRow(lines, event, { opening, type }) {
    const entry = entryOf(lines);
    const payload = type === JSON_PAYLOAD ? event : quotedPayload(event);
    if (entry.origin !== this.#origin) refuseRow(`the entry belongs to ${entry.origin}, not to ${this.#origin}`);
    this.#hasher.start().add(COMMITMENT_CONTEXT).add(opening).add(this.#typeFrame(type)).add(payload);
    if (!equalBytes(this.#hasher.digest(), entry.commitment)) {
      refuseRow("the payload is not the one that the entry commits to");
    }
    return entry.time;
  }

  // Nearly all are of the type of the one before.
  #typeFrame(type) {
    if (type !== this.#type) {
      const kind = encodeText(type);
      if (kind.length > MAX_TYPE_BYTES || kind.length !== type.length) refuseLine("a media type is ASCII, of 1 to 255 bytes");
      [this.#type, this.#framed] = [type, Uint8Array.of(0, kind.length, ...kind)];
    }
    return this.#framed;
  }
}

function entryOf(lines) {
  const simple = lines.match(ENTRY_LINE);
  if (simple !== null && simple[3].length <= MAX_WRITER_BYTES && lines.end - lines.start <= MAX_ENTRY_BYTES) {
    return { commitment: hashAt(lines.raw, lines.start + BEFORE_COMMITMENT), origin: simple[1], time: Number(simple[2]) };
  }
  return parseEntry(lines.bytes());
}

function quotedPayload(event) {
  if (event.length < 2 || event[0] !== QUOTE || event.at(-1) !== QUOTE) {
    refuseLine("a payload that is not JSON is in base64, in quotation marks");
  }
  return decodeBase64(decodeText(event.subarray(1, -1), "a payload in base64"));
}

// Of what fits HASH_TEXT: 10 times three bytes, and two.
function hashAt(raw, place) {
  const hash = new Uint8Array(HASH_BYTES);
  const bitsOf = (from) =>
    (BASE64_VALUES[raw[from]] << 18) |
    (BASE64_VALUES[raw[from + 1]] << 12) |
    (BASE64_VALUES[raw[from + 2]] << 6) |
    BASE64_VALUES[raw[from + 3]];
  let bits = bitsOf(place);
  for (let to = 0; to < HASH_BYTES - 2; to += 3) {
    hash[to] = bits >> 16;
    hash[to + 1] = bits >> 8;
    hash[to + 2] = bits;
    place += 4;
    bits = bitsOf(place);
  }
  hash[HASH_BYTES - 2] = bits >> 16;
  hash[HASH_BYTES - 1] = bits >> 8;
  return hash;
}

function base64Values() {
  const values = new Uint8Array(256);
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (let value = 0; value < 64; value += 1) values[digits.charCodeAt(value)] = value;
  return values;
}

function refuseLine(message) {
  throw new MalformedError(message);
}

function refuseRow(message) {
  throw new RefusedError(message, "bundle");
}
