// What the log of a segment is checked for on each page that verifies: its key, its head, and that it kept its history.

import { decodeText, encodeBase64, encodeHex, encodeText, equalBytes } from "./bytes.js";
import { openCheckpoint, parseCheckpoint } from "./checkpoint.js";
import { MalformedError, RefusedError } from "./errors.js";
import { findEvidence } from "./evidence.js";
import { isJsonObject, parseJson } from "./json.js";
import { keepAlarm, keepHead, keepTrust, recallLog } from "./known-log.js";
import { parseNote, parseVerifier } from "./note.js";
import { parsePolicy, verifyLog } from "./policy.js";
import { verifyConsistency } from "./proof.js";
import { hashesMember } from "./receipt.js";

/** The server did not give what was asked for: that says nothing of its truth. */
export class UnansweredError extends Error {
  name = "UnansweredError";
}

/** A log that contradicts what this browser verified before: `files` are texts to keep. */
export class ContradictionError extends RefusedError {
  constructor(message, where, files = []) {
    super(message, where);
    this.files = files;
  }
}

/** Return { segment, known, trust, read, readProof }: what checks of a segment begin with; raise MalformedError. */
export async function approachLog(segment, shown) {
  const known = recallLog(segment);
  const trust = await trustOf(known, shown);
  checkKey(trust, known, segment, shown.vkey);
  return { segment, known, trust, ...reader(segment) };
}

/** Keep the key of a log, if its signature holds, and its head, if that goes on from the last one. */
export function rememberLog({ segment, known, rawHead, head }, states, { vkey }) {
  if (states.checkpoint === "good" && !known?.trusted) keepTrust(segment, vkey, false);
  if (["good", "first"].includes(states.consistency)) {
    keepHead(segment, decodeText(rawHead, "a checkpoint"), head.size);
  }
}

/** Run a check; return { state, said }. */
export async function outcomeOf(run, found) {
  try {
    const said = await run(found);
    return typeof said === "string" ? { state: "good", said } : said;
  } catch (error) {
    if (error instanceof ContradictionError) keepAlarm(found.segment, error.message, error.files);
    if (error instanceof UnansweredError) return { state: "unanswered", said: error.message };
    // A fault of ours is no proof of anything, but must not look like a check that goes on for ever.
    return { state: "broken", said: error.message };
  }
}

/** Return whom to believe: what is known of a log says it, or else the key that the server shows; raise MalformedError. */
export async function trustOf(known, { vkey, origin }) {
  return known?.trusted ? readTrust(known.trusted, origin) : readKey(vkey);
}

/** Return whom to believe, { origin, keys, policy }, of the text of a vkey or a trust policy; raise MalformedError. */
export async function readTrust(text, origin) {
  if (!/\s/.test(text.trim())) return readKey(text.trim());
  const policy = await parsePolicy(encodeText(text.endsWith("\n") ? text : `${text}\n`));
  const keys = policy.logs.map(({ key }) => key).filter(({ name }) => name === origin);
  if (keys.length === 0) throw new MalformedError(`the trust policy has no log ${origin}`);
  return { origin, keys, policy };
}

async function readKey(vkey) {
  const key = await parseVerifier(vkey);
  return { origin: key.name, keys: [key] };
}

/** Read the head, and check that the log signed it. */
export async function checkCheckpoint(found) {
  found.rawHead = await found.read("checkpoint");
  found.head = await openHead(found.rawHead, found.trust);
  // A trust policy may have other segments of the log too, and which of them this is the page says.
  if (!found.head.origin.endsWith(`/segments/${found.segment}`)) {
    throw new RefusedError(`a checkpoint of ${found.head.origin}, where ${found.segment} was asked for`, "checkpoint");
  }
  const ids = found.trust.keys.map(({ id }) => encodeHex(id)).join(" or ");
  return `${found.head.size.toLocaleString("en")} entries, signed by ${found.head.origin} with the key ${ids}`;
}

/** Check that the head goes on from the last one that this browser verified. */
export async function checkHistory(found) {
  const { head, rawHead, known } = found;
  if (!known?.head)
    return { state: "first", said: "the first head that this browser sees of this log; from now on it remembers" };
  const older = await openHead(encodeText(known.head), found.trust);
  const files = [known.head, new TextDecoder().decode(rawHead)];
  if (head.size < older.size) {
    const said = `the log went back: it showed ${older.size} entries before, and now ${head.size}`;
    throw new ContradictionError(said, "history", files);
  }
  await checkExtends(found, older, files);
  return `the ${older.size.toLocaleString("en")} entries that this browser saw before are the first of these`;
}

/** Check that a head goes on from an older one, which was opened; `files` are kept if it does not. */
export async function checkExtends({ head, rawHead, readProof }, older, files) {
  if (head.size === older.size && equalBytes(head.root, older.root)) return;
  const isSame = head.size === older.size;
  const proof = isSame ? [] : await readProof(`proof/consistency/${older.size}/${head.size}`);
  const why = isSame
    ? `of ${head.size} entries it signed the roots ${encodeBase64(older.root)} and ${encodeBase64(head.root)}`
    : await faultOf(older, head, proof);
  if (why === null) return;
  const evidence = await findEvidence(older.note, parseNote(rawHead), proof);
  const what = evidence
    ? "the log shows two histories, and this proves it"
    : "the log does not show that it kept its history";
  throw new ContradictionError(`${what}: ${why}`, "history", evidence ? [evidence] : files);
}

/** Return why a newer head does not begin with an older one, or null if it does. */
export async function faultOf(older, newer, proof) {
  try {
    await verifyConsistency({
      oldSize: older.size,
      newSize: newer.size,
      oldRoot: older.root,
      newRoot: newer.root,
      proof,
    });
  } catch (error) {
    if (error instanceof RefusedError) return error.message;
    throw error;
  }
  return null;
}

async function openHead(raw, { origin, keys, policy }) {
  if (policy === undefined) return openCheckpoint(raw, keys[0]);
  const note = parseNote(raw);
  await verifyLog(note, policy);
  const head = await parseCheckpoint(note.text);
  if (head.origin !== origin) throw new RefusedError(`a checkpoint of ${head.origin}, not of ${origin}`, "checkpoint");
  return { ...head, note };
}

function checkKey({ keys }, known, segment, vkey) {
  if (keys.some((key) => key.vkey === vkey)) return;
  const before = known.isGiven ? "those that you gave" : "the one of before";
  keepAlarm(
    segment,
    `The server shows another key of ${segment} than ${before}: ${vkey}`,
    keys.map((key) => key.vkey),
  );
}

function reader(segment) {
  const read = async (path) => {
    let answer;
    try {
      answer = await fetch(`/segments/${segment}/${path}`, { cache: "no-store" });
      if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
    } catch (error) {
      throw new UnansweredError(`the server does not answer: ${error.message}`);
    }
    const problem = await answer.json().catch(() => null);
    throw new UnansweredError(`the server answers ${answer.status}: ${problem?.detail ?? "and does not say why"}`);
  };
  return { read, readProof: async (path) => parseProof(await read(path)) };
}

function parseProof(raw) {
  const members = parseJson(raw);
  if (!isJsonObject(members)) throw new MalformedError("the answer is not that of a proof");
  return hashesMember(members, "proof");
}
