// Evidence: statements of a log or a witness that it cannot have made honestly, in one file (spec/evidence.md).
//
// Evidence is { kind, witness, index, parts, notes }: `witness` is the key of the witness that is accused, or null; each part
// is { proof } with, by kind, { leaf } or { entry }.

import {
  concatBytes,
  decodeBase64,
  decodeText,
  encodeBase64,
  encodeHex,
  encodeText,
  equalBytes,
  parseDecimal,
} from "./bytes.js";
import { parseHead } from "./checkpoint.js";
import { openCosignature } from "./cosignature.js";
import { parseEntry } from "./entry.js";
import { MalformedError, RefusedError } from "./errors.js";
import { foldHashes, HASH_BYTES, leafHash } from "./hashes.js";
import { formatNote, parseNote, parseVerifier } from "./note.js";
import { openWitnessed, verifyLog } from "./policy.js";
import { prefixRoot, verifyInclusion } from "./proof.js";

const EVIDENCE_HEADER = "tlog/evidence/v1";
const MAX_EVIDENCE_BYTES = 16_384;
/** Seconds after the time of an entry until, at the latest, the witnesses of an honest log have cosigned it. */
const MAX_LAG = 86_400n;
/** Seconds that a cosignature may be ahead of the clock of who judges it. */
const MAX_AHEAD = 300;
/** How many lines of a log evidence has of each head, so that there is room. */
const MAX_LINES = 8;
const SEGMENT_ORIGIN = /^[^\n]+\/segments\/[a-z0-9][a-z0-9-]{0,62}$/;
const NOTES_OF_KIND = { empty: 1, fork: 2, prefix: 2, entry: 2, backdating: 2 };

/** Return the evidence in a file, with nothing checked but its form; raise MalformedError. */
export async function parseEvidence(raw) {
  if (raw.length > MAX_EVIDENCE_BYTES) throw new MalformedError(`evidence has at most ${MAX_EVIDENCE_BYTES} bytes`);
  const [head, ...parts] = decodeText(raw, "evidence").replace(/\n$/, "").split("\n\n");
  if (parts.length % 2) throw new MalformedError("each note of evidence is a text, an empty line, and signature lines");
  const notes = parts.filter((_, place) => place % 2 === 0).map((text, place) => headNote(text, parts[2 * place + 1]));
  const evidence = { ...(await parseLines(head.split("\n"))), notes };
  if (notes.length !== NOTES_OF_KIND[evidence.kind]) throw notEvidence();
  if (!equalBytes(formatEvidence(evidence), raw)) throw new MalformedError("the evidence is not in its only form");
  return evidence;
}

/**
 * Return who did what, in one sentence, if the evidence proves it under a trust policy; else raise RefusedError.
 *
 * `now` is in POSIX seconds: what witnesses say of times still to come proves nothing.
 */
export async function describeEvidence(evidence, policy, { now = Infinity, formatTime = (time) => `${time} ms` } = {}) {
  try {
    return await JUDGES[evidence.kind](evidence, policy, now, formatTime);
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof RefusedError)) throw error;
    throw new RefusedError(`not proven: ${error.message}`, error.where ?? "evidence");
  }
}

/**
 * Return the file, as text, of the evidence that two heads make with a consistency proof of anyone; null if they make none.
 *
 * Both are heads of one log, verified by the caller. Where the older size is a power of two, a proof does not say what it
 * starts from (RFC 9162 section 2.1.4.1), and makes none.
 */
export async function findEvidence(older, newer, proof) {
  const [one, other] = [parseHead(older.text), parseHead(newer.text)];
  const notes = [older, newer].map((note) => ownLines(note, one.origin));
  if (one.size === other.size) return equalBytes(one.root, other.root) ? null : forkFile(notes);
  try {
    const root = await prefixRoot({ oldSize: one.size, newSize: other.size, proof, newRoot: other.root });
    return equalBytes(root, one.root) ? null : evidenceFile({ kind: "prefix", parts: [{ proof }], notes });
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
    return null;
  }
}

const JUDGES = {
  async empty({ notes }, policy) {
    const head = await openAccused(notes[0], policy, null);
    if (head.size !== 0n || equalBytes(head.root, await foldHashes([]))) {
      unproven("the head is not one of size 0 with another root than that of no entries");
    }
    return `log ${head.origin} signed the root ${encodeBase64(head.root)} of 0 entries, which no tree has`;
  },

  async fork({ notes, witness }, policy) {
    const [one, other] = await openPair(notes, policy, witness);
    if (one.size !== other.size || equalBytes(one.root, other.root))
      unproven("the heads are not two roots of one size");
    const roots = `${encodeBase64(one.root)} and ${encodeBase64(other.root)}`;
    return `${accuse(witness, one)} two roots of ${one.size} entries: ${roots}`;
  },

  async prefix({ notes, witness, parts: [{ proof }] }, policy) {
    const [older, newer] = await openPair(notes, policy, witness);
    const root = await prefixRoot({ oldSize: older.size, newSize: newer.size, proof, newRoot: newer.root });
    if (equalBytes(root, older.root)) unproven("the older head is a prefix of the newer one");
    return (
      `${accuse(witness, older)} the root ${encodeBase64(older.root)} of ${older.size} entries, but under the root ` +
      `${encodeBase64(newer.root)} of ${newer.size} entries the first ${older.size} have the root ${encodeBase64(root)}`
    );
  },

  async entry({ notes, index, parts: [first, second] }, policy) {
    const [one, other] = await openPair(notes, policy, null);
    if (equalBytes(first.leaf, second.leaf)) unproven("both heads have the same entry at that index");
    await verifyInclusion({ ...first, index, size: one.size, root: one.root });
    await verifyInclusion({ ...second, index, size: other.size, root: other.root });
    return (
      `${accuse(null, one)} two entries at index ${index}: leaf hash ${encodeBase64(first.leaf)} of ${one.size} entries, ` +
      `and ${encodeBase64(second.leaf)} of ${other.size}`
    );
  },

  async backdating({ notes, index, parts: [{ entry: raw, proof }] }, policy, now, formatTime) {
    const [head, earlier] = await openPair(notes, policy, null);
    // In another log anybody may have had bytes put in that read like an entry: only a segment makes its entries itself.
    const entry = parseEntry(raw);
    if (!SEGMENT_ORIGIN.test(head.origin) || entry.origin !== head.origin) {
      unproven("the entry is not one of a segment, in its own log");
    }
    await verifyInclusion({ leaf: await leafHash(raw), index, size: head.size, proof, root: head.root });
    const { time } = await openWitnessed(encodeText(formatNote(notes[1])), policy);
    if (time === null) unproven("the trust policy asks for no witnesses, whose time would count");
    if (Number(time) > now + MAX_AHEAD) unproven("the earlier head was cosigned at a time that is still to come");
    if (earlier.size > index) unproven("the earlier head is large enough to have the entry");
    if (time <= BigInt(entry.time) / 1000n + MAX_LAG) {
      unproven(`the entry is not dated more than ${MAX_LAG} seconds before the earlier head was cosigned`);
    }
    return (
      `log ${head.origin} dated entry ${index} to ${formatTime(BigInt(entry.time))}, but the quorum of its witnesses knew of ` +
      `no more than ${earlier.size} entries at ${formatTime(time * 1000n)}`
    );
  },
};

async function openPair(notes, policy, witness) {
  const [one, other] = [await openAccused(notes[0], policy, witness), await openAccused(notes[1], policy, witness)];
  if (one.origin !== other.origin) unproven(`the heads are those of two logs, ${one.origin} and ${other.origin}`);
  return [one, other];
}

async function openAccused(note, policy, witness) {
  if (witness === null) {
    await verifyLog(note, policy);
  } else if (policy.witnesses.some(({ key }) => key.vkey === witness.vkey)) {
    await openCosignature(note, witness);
  } else {
    unproven(`the trust policy has no witness ${witness.name} with that key`);
  }
  return parseHead(note.text);
}

function accuse(witness, head) {
  return witness === null ? `log ${head.origin} signed` : `witness ${witness.name} cosigned for ${head.origin}`;
}

function unproven(why) {
  throw new RefusedError(why, "evidence");
}

function notEvidence() {
  return new MalformedError("not the lines and notes of any kind of evidence");
}

async function parseLines([header, kind, ...rest]) {
  if (header !== EVIDENCE_HEADER) throw new MalformedError(`evidence starts with ${EVIDENCE_HEADER}`);
  if (!Object.hasOwn(NOTES_OF_KIND, kind ?? "")) throw notEvidence();
  const accused = (kind === "fork" || kind === "prefix") && rest[0]?.startsWith("witness ") ? rest.shift() : null;
  const witness = accused === null ? null : await parseVerifier(lineValue(accused, "witness"));
  const isIndexed = kind === "entry" || kind === "backdating";
  const index = isIndexed ? parseDecimal(lineValue(rest.shift(), "index")) : null;
  return { kind, witness, index, parts: parseParts(kind, rest) };
}

function parseParts(kind, lines) {
  if (kind === "prefix") return [{ proof: lines.map(hashLine) }];
  if (kind === "backdating") {
    return [{ entry: decodeBase64(lineValue(lines[0], "entry")), proof: lines.slice(1).map(hashLine) }];
  }
  if (kind === "entry") return splitLeaves(lines);
  if (lines.length > 0) throw notEvidence();
  return [];
}

function splitLeaves(lines) {
  const starts = lines.flatMap((line, place) => (line.startsWith("leaf ") ? [place] : []));
  if (starts.length !== 2 || starts[0] !== 0) {
    throw new MalformedError("evidence of two entries has two lines that start with leaf");
  }
  return [lines.slice(0, starts[1]), lines.slice(starts[1])].map(([leaf, ...proof]) => ({
    leaf: hashLine(lineValue(leaf, "leaf")),
    proof: proof.map(hashLine),
  }));
}

function formatEvidence({ kind, witness, index, parts, notes }) {
  const lines = [EVIDENCE_HEADER, kind];
  if (witness !== null) lines.push(`witness ${witness.vkey}`);
  if (index !== null) lines.push(`index ${index}`);
  for (const { leaf, entry, proof } of parts) {
    if (leaf) lines.push(`leaf ${encodeBase64(leaf)}`);
    if (entry) lines.push(`entry ${encodeBase64(entry)}`);
    lines.push(...proof.map(encodeBase64));
  }
  return concatBytes(encodeText(`${lines.join("\n")}\n\n`), encodeText(notes.map(formatNote).join("\n")));
}

function forkFile(notes) {
  const byRoot = (note) => encodeHex(parseHead(note.text).root);
  return evidenceFile({ kind: "fork", parts: [], notes: notes.sort((a, b) => (byRoot(a) < byRoot(b) ? -1 : 1)) });
}

function evidenceFile(evidence) {
  return decodeText(formatEvidence({ witness: null, index: null, ...evidence }), "evidence");
}

// Lines of others would only make it larger.
function ownLines(note, origin) {
  return { text: note.text, signatures: note.signatures.filter((line) => line.name === origin).slice(0, MAX_LINES) };
}

function headNote(text, lines) {
  const note = parseNote(encodeText(`${text}\n\n${lines}\n`));
  parseHead(note.text);
  return note;
}

function hashLine(line) {
  return decodeBase64(line, HASH_BYTES);
}

function lineValue(line, name) {
  if (!line?.startsWith(`${name} `)) throw new MalformedError(`expected a line that starts with ${name}`);
  return line.slice(name.length + 1);
}
