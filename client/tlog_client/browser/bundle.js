// Evidence bundles: what one proves, and the report of it, as `tlog-client verify` says it (spec/bundle.md).
//
// Ten thousand events are to be verified while somebody waits: so what stands on each line is compared in the form in which it
// stands there, and hashed at once.

import { decodeBase64, decodeText, encodeBase64, encodeHex, encodeText } from "./bytes.js";
import { parseHead } from "./checkpoint.js";
import { parseEntry } from "./entry.js";
import { MalformedError, RefusedError } from "./errors.js";
import { HASH_BYTES, sha256 } from "./hashes.js";
import { canonicalText, exactMembers, isJsonObject, numberMember, parseJson, textMember } from "./json.js";
import { parseNote } from "./note.js";
import { atPlace, atPlaceLater, placed } from "./place.js";
import { openWitnessed, parsePolicy } from "./policy.js";
import { Hasher } from "./sha256.js";
import { verifySubset } from "./subset.js";
import { parseZip, verifyCrc } from "./zip.js";

const MANIFEST = "manifest.json";
const POLICY_FILE = "trust.policy";
const PAGE_FILE = "verify.html";
const PART_FILES = ["checkpoint", "proof", "entries.ndjson", "events.ndjson", "openings.ndjson"];
const BUNDLE_COMMENT = "tlog/bundle/v1 ";
const SEARCH_TERMS = ["action", "actor", "before", "outcome", "q", "since", "source", "start", "target", "until"];
const MAX_MANIFEST_BYTES = 1 << 20;
const MAX_PART_ENTRIES = 1_000_000;
const MAX_TYPE_BYTES = 255;
const JSON_PAYLOAD = "application/json";
const SEGMENTS = "/segments/";
const END_OF_CALENDAR = 253_402_300_800_000;

const LATIN = new TextDecoder("latin1");
const NO_BYTES = new Uint8Array();
const NEWLINE = 10;
const QUOTE = 34;
const LEAF_PREFIX = Uint8Array.of(0);
const COMMITMENT_CONTEXT = encodeText("tlog/commitment/v1\n");
const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_CODES = encodeText(BASE64);
const BASE64_VALUES = base64Values();

const HASH_TEXT = "([+/-9A-Za-z]{42}[AEIMQUYcgkosw048]=)";
const PLAIN_TEXT = "([ !#-\\[\\]-~]+)";
const PLAIN_NUMBER = "(0|[1-9][0-9]{0,14})";
// Nearly all lines, in their only form: with ASCII in which nothing is escaped. Others are parsed, slowly.
const OPENING_LINE = new RegExp(
  `^\\{"index":${PLAIN_NUMBER},"leaf":"${HASH_TEXT}","opening":"${HASH_TEXT}","payload_type":"${PLAIN_TEXT}"\\}$`,
);
const ENTRY_LINE = new RegExp(
  `^\\{"commitment":"${HASH_TEXT}","origin":"${PLAIN_TEXT}","time":${PLAIN_NUMBER},"v":1,"writer":"${PLAIN_TEXT}"\\}$`,
);
const MAX_PLAIN_WRITER = 255;

/**
 * Return what a bundle proves: { manifest, parts, policy, contents }; raise MalformedError or RefusedError, with its `place`.
 *
 * `trust` is the trust policy of who verifies, or null to believe the one in the bundle, which proves only that it fits
 * together. `tick` is called now and then with how much of the work is done, from 0 to 1, and waited for.
 */
export async function verifyBundle(raw, trust = null, tick = async () => {}) {
  const { members, comment } = atPlace("the zip", () => parseZip(raw));
  const manifest = await readManifest(members, comment);
  // Hashed meanwhile, and asked for at the end.
  const changed = changedFiles(members, manifest);
  try {
    return await verifyMembers({ raw, members, manifest, changed, trust, tick });
  } catch (error) {
    throw blamed(error, await changed);
  }
}

async function verifyMembers({ raw, members, manifest, changed, trust, tick }) {
  const contents = new Map(members.map(({ name, content }) => [name, content]));
  const stated = await atPlaceLater(POLICY_FILE, () => parsePolicy(contents.get(POLICY_FILE)));
  const progress = { done: 0, all: raw.length, tick };
  const parts = [];
  for (const name of partNames([...contents.keys()])) {
    parts.push(await verifyBundlePart(partOf(name, contents), trust, stated, progress));
  }
  atPlace(MANIFEST, () => {
    verifyPartOrigins(manifest.origin, parts);
    if (manifest.asked.search === undefined) verifyWholeRange(parts[0].indexes, manifest.asked);
  });
  for (const name of await changed) atPlace(name, () => refuseForm("it is not the file that the manifest has"));
  for (const member of members) atPlace(member.name, () => verifyCrc(member));
  await tick(1);
  return { manifest, parts, policy: trust ?? stated, contents };
}

// Where a file of a part is not as it was, that is what is wrong, wherever in the part it comes up.
function blamed(error, changed) {
  const [file, ...line] = (error.place ?? "").split(", ");
  const [part] = file.split("/");
  const guilty = [...changed].find((name) => file.includes("/") && name.startsWith(`${part}/`));
  if (guilty !== undefined) error.place = [guilty, ...line].join(", ");
  return error;
}

/** Return the report of a bundle that holds, { facts, checks, notes }, by the table of checks and clauses. */
export function reportOf(bundle, table) {
  const details = new Map(reportDetails(bundle));
  const checks = table.checks.filter(({ id }) => details.has(id));
  return {
    facts: reportFacts(bundle),
    checks: checks.map(({ id, title, clauses }) => ({ title, detail: details.get(id), clauses })),
    notes: reportNotes(bundle).map((name) => table.notes[name]),
  };
}

/** Return a report as text, as `tlog-client verify` prints it. */
export function reportText({ facts, checks, notes }) {
  const lines = facts.map(([label, value]) => `${`${label}:`.padEnd(15)} ${value}`);
  lines.push("checked:");
  for (const { title, detail, clauses } of checks) lines.push(`  ${title}: ${detail}`, `    ${clauses.join("; ")}`);
  return [...lines, ...notes.map((note) => `note: ${note}`), ""].join("\n");
}

/** Return the line of a file of a part, counted from 0, as bytes. */
export function lineOf(raw, number) {
  let start = 0;
  for (; number > 0; number -= 1) start = raw.indexOf(NEWLINE, start) + 1;
  return raw.subarray(start, raw.indexOf(NEWLINE, start));
}

async function readManifest(members, comment) {
  const names = members.slice(1).map(({ name }) => name);
  const due = [POLICY_FILE, ...partNames(names).flatMap((part) => PART_FILES.map((file) => `${part}/${file}`)), PAGE_FILE];
  const manifest = await atPlaceLater(MANIFEST, async () => {
    const { name, content } = members[0];
    if (name !== MANIFEST) refuseForm("it is not the first member of the zip");
    if (`${BUNDLE_COMMENT}${encodeHex(await sha256(content))}` !== comment) {
      refuseForm("it, or the comment of the zip, is not as it was: their hashes differ");
    }
    return parseManifest(content);
  });
  for (const [place, name] of due.entries()) {
    if (names[place] !== name || manifest.files[place]?.name !== name) {
      atPlace(name, () => refuseForm("it is not in its place, in the zip or in the manifest"));
    }
  }
  if (names.length !== due.length || manifest.files.length !== due.length) {
    atPlace("the zip", () => refuseForm("there are members that no bundle has"));
  }
  return manifest;
}

/** Return the manifest in bytes; MalformedError unless it is exactly a manifest's only form. */
export function parseManifest(raw) {
  if (raw.length > MAX_MANIFEST_BYTES) refuseForm(`a manifest has at most ${MAX_MANIFEST_BYTES} bytes`);
  const members = parseJson(raw);
  if (!isJsonObject(members) || members.v !== 1) refuseForm("not a manifest of version 1");
  exactMembers(members, ["asked", "at", "by", "files", "origin", "tool", "v"]);
  if (canonicalText(members) !== decodeText(raw, "a manifest")) refuseForm("the manifest is not canonical");
  if (!Array.isArray(members.files)) refuseForm("files is not a list");
  return {
    asked: askedOf(members.asked),
    at: numberMember(members, "at"),
    by: wordsOf(members, "by"),
    files: members.files.map((file) => {
      exactMembers(file, ["name", "sha256", "size"]);
      return { name: textMember(file, "name"), sha256: textMember(file, "sha256"), size: numberMember(file, "size") };
    }),
    origin: textMember(members, "origin"),
    tool: wordsOf(members, "tool"),
  };
}

function askedOf(asked) {
  if (isJsonObject(asked) && "search" in asked) {
    exactMembers(asked, ["search"]);
    const terms = isJsonObject(asked.search) ? Object.entries(asked.search) : [];
    if (terms.length === 0 || terms.some(([name]) => !SEARCH_TERMS.includes(name))) {
      refuseForm("what was searched for is none of the parameters of a search");
    }
    if (terms.some(([, value]) => typeof value !== "string" && !Number.isSafeInteger(value))) {
      refuseForm("a parameter of the search is neither a text nor a number");
    }
    return { search: Object.fromEntries(terms) };
  }
  exactMembers(asked, ["end", "start"]);
  const [start, end] = [numberMember(asked, "start"), numberMember(asked, "end")];
  if (start >= end) refuseForm("a range has at least one entry");
  return { start, end };
}

function wordsOf(members, name) {
  const words = textMember(members, name);
  if ([...words].length > 255) refuseForm(`${name} has at most 255 characters`);
  return words;
}

// The names of files that are not as the manifest has them, in their order.
async function changedFiles(members, manifest) {
  const hashes = await Promise.all(members.slice(1).map(({ content }) => sha256(content)));
  const isChanged = ({ sha256: due, size }, place) =>
    size !== members[place + 1].content.length || due !== encodeHex(hashes[place]);
  return new Set(manifest.files.filter(isChanged).map(({ name }) => name));
}

function partNames(names) {
  return ["segment", ...["control", "access"].filter((part) => names.includes(`${part}/${PART_FILES[0]}`))];
}

function partOf(name, contents) {
  const [checkpoint, proof, entries, events, openings] = PART_FILES.map((file) => contents.get(`${name}/${file}`));
  return { name, checkpoint, proof, entries, events, openings };
}

async function verifyBundlePart(part, trust, stated, progress) {
  const { head, keys, isOwn, quorum } = await atPlaceLater(`${part.name}/checkpoint`, async () => {
    const { origin } = parseHead(parseNote(part.checkpoint).text);
    const of = (policy) => policy.logs.map((log) => log.key).filter((key) => key.name === origin);
    const own = trust !== null && (part.name === "segment" || of(trust).length > 0);
    const policy = own ? trust : stated;
    return { head: await openWitnessed(part.checkpoint, policy), keys: of(policy), isOwn: own, quorum: policy.quorum };
  });
  const proof = atPlace(`${part.name}/proof`, () => proofLines(part.proof));
  const { indexes, leaves, times } = await readRows(part, head.origin, progress);
  atPlace(`${part.name}/proof`, () => verifySubset({ indexes, leaves, size: head.size, proof, root: head.root }));
  return { name: part.name, head, keys, quorum, isOwn, indexes, firstTime: times[0], lastTime: times.at(-1) };
}

function proofLines(raw) {
  const lines = decodeText(raw, "a proof").split("\n");
  if (lines.pop() !== "") refuseForm("the last line does not end in a newline");
  return lines.map((line) => decodeBase64(line, HASH_BYTES));
}

async function readRows(part, origin, progress) {
  const [indexes, leaves, times] = [[], [], []];
  const hasher = new Hasher();
  const [entries, events] = [part.entries, part.events].map((raw) => new LineReader(raw));
  const lines = atPlace(`${part.name}/openings.ndjson`, () => openingLines(part.openings));
  // Not `atPlace` for each line: the places of all are much to write, and then nobody asks for them.
  let line = null;
  try {
    for (const text of lines) {
      line = null;
      line = parseOpeningLine(text);
      const entry = entries.next();
      const event = events.next();
      leaves.push(verifyLeaf(entry, line, hasher));
      times.push(verifyRow(entry, event, line, origin, hasher));
      if (times.at(-1) < times.at(-2)) refuseProof("it is older than the entry before it");
      indexes.push(line.index);
      progress.done += entry.length + event.length;
      if (indexes.length % 128 === 0) await progress.tick(progress.done / progress.all);
    }
  } catch (error) {
    const number = `line ${indexes.length + 1}`;
    const place = line === null ? `openings.ndjson, ${number}` : `entries.ndjson, ${number}, entry ${line.index}`;
    throw placed(error, `${part.name}/${place}`);
  }
  for (const [file, reader] of [["entries.ndjson", entries], ["events.ndjson", events]]) {
    if (!reader.isWhole()) {
      atPlace(`${part.name}/${file}`, () => refuseForm("it has not as many lines as there are openings"));
    }
  }
  return { indexes, leaves, times };
}

// The lines, each a character for a byte.
function openingLines(raw) {
  const lines = latinText(raw).split("\n");
  if (lines.pop() !== "") refuseForm("the last line does not end in a newline");
  if (lines.length === 0 || lines.length > MAX_PART_ENTRIES) {
    refuseForm(`a part of a bundle has 1 to ${MAX_PART_ENTRIES} entries`);
  }
  return lines;
}

function parseOpeningLine(text) {
  const simple = OPENING_LINE.exec(text);
  if (simple !== null) return { index: Number(simple[1]), leaf: simple[2], opening: decodeHash(simple[3]), type: simple[4] };
  // What is not ASCII is in no such line: its type could not be.
  const members = exactMembers(parseJson(encodeText(text)), ["index", "leaf", "opening", "payload_type"]);
  if (canonicalText(members) !== text) refuseForm("the line is not canonical");
  const [leaf, opening] = ["leaf", "opening"].map((name) => decodeBase64(textMember(members, name), HASH_BYTES));
  const type = textMember(members, "payload_type");
  return { index: numberMember(members, "index"), leaf: encodeBase64(leaf), opening, type };
}

function verifyLeaf(entry, line, hasher) {
  const leaf = hasher.start().add(LEAF_PREFIX).add(entry).digest();
  if (encodeHash(leaf) !== line.leaf) refuseProof("the entry has not the leaf hash that stands beside it");
  return leaf;
}

// Return the time of the entry, which is of this log and commits to its payload.
function verifyRow(raw, event, { opening, type }, origin, hasher) {
  const entry = entryOf(raw);
  const payload = type === JSON_PAYLOAD ? event : quotedPayload(event);
  if (entry.origin !== origin) refuseProof(`the entry belongs to ${entry.origin}, not to ${origin}`);
  const kind = encodeText(type);
  if (kind.length > MAX_TYPE_BYTES || kind.length !== type.length) refuseForm("a media type is ASCII, of 1 to 255 bytes");
  hasher.start().add(COMMITMENT_CONTEXT).add(opening).add([kind.length >> 8, kind.length & 255]).add(kind).add(payload);
  if (encodeHash(hasher.digest()) !== entry.commitment) {
    refuseProof("the payload is not the one that the entry commits to");
  }
  return entry.time;
}

function entryOf(raw) {
  const simple = ENTRY_LINE.exec(latinText(raw));
  if (simple !== null && simple[4].length <= MAX_PLAIN_WRITER && raw.length <= 65_535) {
    return { commitment: simple[1], origin: simple[2], time: Number(simple[3]) };
  }
  const entry = parseEntry(raw);
  return { commitment: encodeBase64(entry.commitment), origin: entry.origin, time: entry.time };
}

function quotedPayload(event) {
  if (event.length < 2 || event[0] !== QUOTE || event.at(-1) !== QUOTE) {
    refuseForm("a payload that is not JSON is in base64, in quotation marks");
  }
  return decodeBase64(decodeText(event.subarray(1, -1), "a payload in base64"));
}

function verifyWholeRange(indexes, { start, end }) {
  const wrong = indexes.findIndex((index, place) => index !== start + place);
  if (wrong >= 0 || indexes.length !== end - start) {
    const place = wrong >= 0 ? start + wrong : start + Math.min(indexes.length, end - start);
    refuseProof(`of the range from ${start} to before ${end} entry ${place} is not where it is due`);
  }
}

function verifyPartOrigins(origin, parts) {
  const log = origin.slice(0, Math.max(origin.lastIndexOf(SEGMENTS), 0));
  for (const { name, head } of parts) {
    const due = name === "segment" ? origin : `${log}${SEGMENTS}${name}`;
    if (head.origin !== due) refuseProof(`${name} is of ${head.origin}, not of ${due}`);
  }
}

function reportFacts({ manifest, parts: [part] }) {
  const { size, root } = part.head;
  return [
    ["Segment", manifest.origin],
    ["Exported", exportedText(manifest.asked, part.indexes.length)],
    ["Logged", `${timeText(part.firstTime)} to ${timeText(part.lastTime)}`],
    ["Key of the log", part.keys.map(({ vkey }) => vkey).join(" ")],
    ["Head", `${size} entries, root ${encodeBase64(root)}`],
    ["Cosigned by", cosignedText(part.head) || "nobody whom this trust policy knows"],
    ["Exported by", manifest.by],
    ["Exported at", timeText(manifest.at)],
    ["Exported with", manifest.tool],
  ];
}

function reportDetails({ manifest, parts }) {
  const [{ head, indexes, quorum }, ...others] = parts;
  const details = [["signature", manifest.origin]];
  if (head.time !== null) details.push(["quorum", `${quorum}, by ${timeText(1000n * head.time)}`]);
  details.push(["inclusion", `${indexes.length} of ${head.size}`], ["commitment", String(indexes.length)]);
  const { start, end } = manifest.asked;
  if (start !== undefined) details.push(["complete", `${start} to ${end - 1}`]);
  for (const one of others) {
    const last = timeText(one.lastTime);
    details.push([one.name, `entries of ${one.head.origin}: ${one.indexes.length}, the last of ${last}`]);
  }
  return [...details, ["bytes", String(manifest.files.length + 1)]];
}

function reportNotes({ manifest, parts }) {
  return [
    "claims",
    ...(manifest.asked.search ? ["search"] : []),
    ...(parts.length > 1 ? ["parts"] : []),
    ...(parts[0].isOwn ? [] : ["unpinned"]),
    ...(parts[0].isOwn && parts.some(({ isOwn }) => !isOwn) ? ["stated"] : []),
    "clauses",
  ];
}

function exportedText({ start, end, search }, count) {
  if (search === undefined) return `entries ${start} to ${end - 1}`;
  const terms = Object.keys(search).sort().map((name) => `${name}=${search[name]}`);
  return `${count} entries, found by ${terms.join(", ")}`;
}

function cosignedText({ cosigned }) {
  return cosigned.map(([name, time]) => `${name} ${timeText(1000n * time)}`).join(", ");
}

function timeText(milliseconds) {
  return milliseconds < END_OF_CALENDAR ? new Date(Number(milliseconds)).toISOString() : `${milliseconds} ms`;
}

class LineReader {
  #raw;
  #start = 0;

  constructor(raw) {
    this.#raw = raw;
  }

  // All was read, and ended in a newline.
  isWhole() {
    return this.#start === this.#raw.length;
  }

  next() {
    if (this.#start >= this.#raw.length) {
      // A line that is not there is no empty one.
      this.#start = this.#raw.length + 1;
      return NO_BYTES;
    }
    const found = this.#raw.indexOf(NEWLINE, this.#start);
    const end = found < 0 ? this.#raw.length : found;
    const line = this.#raw.subarray(this.#start, end);
    this.#start = end + 1;
    return line;
  }
}

// Only for what a pattern of ASCII is then held against.
function latinText(raw) {
  return LATIN.decode(raw);
}

function encodeHash(hash) {
  const codes = new Uint8Array(44);
  for (let from = 0, to = 0; from < 30; from += 3) {
    const bits = (hash[from] << 16) | (hash[from + 1] << 8) | hash[from + 2];
    codes[to++] = BASE64_CODES[bits >> 18];
    codes[to++] = BASE64_CODES[(bits >> 12) & 63];
    codes[to++] = BASE64_CODES[(bits >> 6) & 63];
    codes[to++] = BASE64_CODES[bits & 63];
  }
  const bits = (hash[30] << 16) | (hash[31] << 8);
  codes.set([BASE64_CODES[bits >> 18], BASE64_CODES[(bits >> 12) & 63], BASE64_CODES[(bits >> 6) & 63], 61], 40);
  return String.fromCharCode.apply(null, codes);
}

// Of what fits HASH_TEXT.
function decodeHash(text) {
  const hash = new Uint8Array(HASH_BYTES + 1);
  for (let from = 0, to = 0; from < 44; from += 4) {
    const value = (place) => BASE64_VALUES[text.charCodeAt(from + place)];
    const bits = (value(0) << 18) | (value(1) << 12) | (value(2) << 6) | value(3);
    hash[to++] = bits >> 16;
    hash[to++] = (bits >> 8) & 255;
    hash[to++] = bits & 255;
  }
  return hash.subarray(0, HASH_BYTES);
}

function base64Values() {
  const values = new Uint8Array(128);
  for (let place = 0; place < 64; place += 1) values[BASE64.charCodeAt(place)] = place;
  return values;
}

function refuseForm(message) {
  throw new MalformedError(message);
}

function refuseProof(message) {
  throw new RefusedError(message, "bundle");
}
