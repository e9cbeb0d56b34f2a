// Entries: the bytes that the log hashes as leaves (spec/entry.md), and what their writers sign.

import { decodeBase64, encodeBase64, encodeText, equalBytes } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { HASH_BYTES } from "./hashes.js";
import { canonicalJson, isJsonObject, numberMember, parseJson, textMember } from "./json.js";
import { NOTE_KEY, parseVerifier, verifySignature } from "./note.js";

export const MAX_ENTRY_BYTES = 65_535;
export const MAX_WRITER_BYTES = 255;
const WRITER_SIGNATURE_BYTES = 68;

/**
 * Return { commitment, origin, time, writer, signed } of an entry in its only form; raise MalformedError.
 *
 * `time` is in milliseconds; `signed` is { sequence, signature }, the key ID first, or null.
 */
export function parseEntry(raw) {
  if (raw.length > MAX_ENTRY_BYTES) throw new MalformedError(`an entry has at most ${MAX_ENTRY_BYTES} bytes`);
  const members = parseJson(raw);
  if (!isJsonObject(members) || members.v !== 1) throw new MalformedError("not an entry of version 1");
  const entry = {
    commitment: decodeBase64(textMember(members, "commitment"), HASH_BYTES),
    origin: textMember(members, "origin"),
    time: numberMember(members, "time"),
    writer: textMember(members, "writer"),
    signed: signedMember(members),
  };
  if (encodeText(entry.writer).length > MAX_WRITER_BYTES) {
    throw new MalformedError(`the name of a writer has at most ${MAX_WRITER_BYTES} bytes`);
  }
  if (!equalBytes(formatEntry(entry), raw)) {
    throw new MalformedError("an entry is not canonical, or has members that no entry has");
  }
  return entry;
}

/** Return the key of a writer; raise MalformedError, also for the key of a witness. */
export async function parseWriterKey(vkey) {
  const key = await parseVerifier(vkey);
  if (key.type !== NOTE_KEY) throw new MalformedError(`the key of ${key.name} is a witness's; make one for the writer`);
  return key;
}

/** Check that an entry is signed by its writer, if `keys` has a key of that writer; raise RefusedError. */
export async function verifyWriter(entry, keys) {
  const known = keys.filter((key) => key.name === entry.writer);
  if (known.length === 0) return;
  if (entry.signed === null) refuseWriter(`an entry in the name of ${entry.writer} is not signed`);
  const { sequence, signature } = entry.signed;
  const key = known.find((one) => one.type === NOTE_KEY && equalBytes(one.id, signature.subarray(0, 4)));
  if (key === undefined) refuseWriter(`not signed by a known key of ${entry.writer}`);
  const lines = ["tlog/writer/v1", entry.origin, entry.writer, sequence, encodeBase64(entry.commitment), ""];
  await verifySignature(key, encodeText(lines.join("\n")), signature.subarray(4), "writer's signature");
}

function refuseWriter(message) {
  throw new RefusedError(message, "writer's signature");
}

function signedMember(members) {
  if (!("writer_sequence" in members) && !("writer_signature" in members)) return null;
  return {
    sequence: numberMember(members, "writer_sequence"),
    signature: decodeBase64(textMember(members, "writer_signature"), WRITER_SIGNATURE_BYTES),
  };
}

function formatEntry({ commitment, origin, time, writer, signed }) {
  const members = { commitment: encodeBase64(commitment), origin, time, v: 1, writer };
  if (signed !== null) {
    members.writer_sequence = signed.sequence;
    members.writer_signature = encodeBase64(signed.signature);
  }
  return canonicalJson(members);
}
