// What a monitor says in public of one log that it follows (spec/bulletin.md): the text of a signed note.
//
// A bulletin is { origin, time, head: { size, root, time } | null, gossip: { time, asked, heard } | null, convicted, tallies,
// note }, each tally { found, kind, number }. Numbers are BigInts, times in milliseconds.

import { decodeBase64, encodeBase64, parseDecimal } from "./bytes.js";
import { MalformedError } from "./errors.js";
import { HASH_BYTES } from "./hashes.js";
import { openNote, parseNote } from "./note.js";

const BULLETIN_HEADER = "tlog/bulletin/v1";
const MAX_BULLETIN_BYTES = 8_192;
const MAX_ASKED = 4_096n;
const MAX_TALLIES = 64;
const MONITOR_SIGNATURE_BYTES = 64;
const TALLY = /^((?:complaint|evidence|violation) [a-z]{1,32}) ([^ ]+)$/;

/** Return the bulletin in bytes, not verified; raise MalformedError. */
export function parseBulletin(raw) {
  if (raw.length > MAX_BULLETIN_BYTES) throw new MalformedError(`a bulletin has at most ${MAX_BULLETIN_BYTES} bytes`);
  const note = parseNote(raw);
  if (note.signatures.length !== 1 || note.signatures[0].blob.length !== MONITOR_SIGNATURE_BYTES) {
    throw new MalformedError("a bulletin has one signature line, of one Ed25519 signature");
  }
  const bulletin = readBulletin(note.text);
  if (formatBulletin(bulletin) !== note.text) {
    throw new MalformedError("the lines of the bulletin are not in order, or not in their only form");
  }
  return { ...bulletin, note };
}

/** Return the bulletin in bytes that the monitor with this key signed; raise MalformedError or RefusedError. */
export async function openBulletin(raw, key) {
  const bulletin = parseBulletin(raw);
  await openNote(bulletin.note, [key], "bulletin");
  return bulletin;
}

function formatBulletin({ origin, time, head, gossip, convicted, tallies }) {
  const lines = [BULLETIN_HEADER, `origin ${origin}`, `time ${time}`];
  if (head !== null) lines.push(`head ${head.size} ${encodeBase64(head.root)} ${head.time}`);
  if (gossip !== null) lines.push(`gossip ${gossip.time} ${gossip.asked} ${gossip.heard}`);
  if (convicted) lines.push("convicted");
  lines.push(...tallies.map(({ found, kind, number }) => `finding ${found} ${kind} ${number}`));
  return lines.map((line) => `${line}\n`).join("");
}

function readBulletin(text) {
  const [header, ...lines] = text.split("\n");
  if (header !== BULLETIN_HEADER) throw new MalformedError(`a bulletin starts with ${BULLETIN_HEADER}`);
  const bulletin = { origin: "", time: "", head: null, gossip: null, convicted: false, tallies: [] };
  // In any order: the caller compares with the one in which they are written.
  for (const line of lines.slice(0, -1)) readLine(bulletin, line);
  const order = bulletin.tallies.map(({ found, kind }) => `${found} ${kind}`);
  if (order.length > MAX_TALLIES || order.some((one, place) => place > 0 && one <= order[place - 1])) {
    throw new MalformedError(`a bulletin has at most ${MAX_TALLIES} findings, in order, and nothing twice`);
  }
  if (!bulletin.origin) throw new MalformedError("the bulletin names no origin");
  return { ...bulletin, time: parseDecimal(bulletin.time) };
}

function readLine(bulletin, line) {
  const [word] = line.split(" ", 1);
  const value = line.slice(word.length + 1);
  if (word === "origin" || word === "time") bulletin[word] = value;
  else if (word === "head") bulletin.head = readVerified(value);
  else if (word === "gossip") bulletin.gossip = readRound(value);
  else if (word === "convicted") bulletin.convicted = true;
  else if (word === "finding") bulletin.tallies.push(readTally(value));
  else throw new MalformedError("expected origin, time, head, gossip, convicted or finding");
}

function readVerified(value) {
  const [size, root, time, ...rest] = value.split(" ");
  if (time === undefined || rest.length > 0) throw new MalformedError("expected head, a size, a root and a time");
  return { size: parseDecimal(size), root: decodeBase64(root, HASH_BYTES), time: parseDecimal(time) };
}

function readRound(value) {
  const words = value.split(" ");
  const [time, asked, heard] = words.length === 3 ? words.map(parseDecimal) : [];
  if (heard <= asked && asked <= MAX_ASKED) return { time, asked, heard };
  throw new MalformedError(
    `expected gossip, a time, how many were asked, up to ${MAX_ASKED}, and how many were heard`,
  );
}

function readTally(value) {
  const [, named, count] = TALLY.exec(value) ?? [];
  const number = named === undefined ? 0n : parseDecimal(count);
  if (number === 0n) throw new MalformedError("expected finding, evidence or violation or complaint, a kind, and how many");
  const [found, kind] = named.split(" ");
  return { found, kind, number };
}
