// Cosignatures: a witness's statement that this is the largest consistent tree it has seen (C2SP tlog-cosignature).
//
// Those of type 04 are Ed25519, and checked. Those of type 06 are ML-DSA-44, which WebCrypto does not have: they are read,
// and never counted.

import { encodeText, MAX_INTEGER, readBigEndian } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { COSIGNATURE_KEY, linesOf, SUBTREE_KEY, verifySignature } from "./note.js";

const TIME_BYTES = 8;
const WITNESS_SIGNATURE_BYTES = { [COSIGNATURE_KEY]: 64, [SUBTREE_KEY]: 2420 };

/** Return { time, signature } of a line's blob, the time a BigInt in POSIX seconds; raise MalformedError. */
export function parseCosignature(blob, keyType = COSIGNATURE_KEY) {
  const length = TIME_BYTES + WITNESS_SIGNATURE_BYTES[keyType];
  if (blob.length !== length) throw new MalformedError(`a cosignature has ${length} bytes after the key ID`);
  const time = readBigEndian(blob.subarray(0, TIME_BYTES));
  if (time > MAX_INTEGER) throw new MalformedError("the time of a cosignature is beyond 2^63-1");
  return { time, signature: blob.subarray(TIME_BYTES) };
}

/** Return the latest cosignature of a note by the witness `key`; RefusedError if there is none, or one is wrong. */
export async function openCosignature(note, key) {
  const found = await openCosignatures(note, key);
  if (found.length === 0) throw new RefusedError(`not cosigned by ${key.name}`, "cosignature");
  if (!found.at(-1).isChecked) {
    throw new RefusedError(`what ${key.name} cosigned by ML-DSA-44 is not checked here`, "cosignature");
  }
  return found.at(-1);
}

/**
 * Return the cosignatures of a note by the witness `key`, { time, isChecked }, in the order of their times.
 *
 * Each line under its name and ID must hold, else RefusedError or MalformedError; `isChecked` is false for those of type
 * 06, of which only the form was looked at.
 */
export async function openCosignatures(note, key) {
  if (!(key.type in WITNESS_SIGNATURE_BYTES)) {
    throw new RefusedError(`${key.name} is not the key of a witness`, "cosignature");
  }
  const isChecked = key.type === COSIGNATURE_KEY;
  const found = linesOf(note, key).map((line) => parseCosignature(line.blob, key.type));
  for (const { time, signature } of isChecked ? found : []) {
    const message = encodeText(`cosignature/v1\ntime ${time}\n${note.text}`);
    await verifySignature(key, message, signature, `cosignature of ${key.name}`);
  }
  const timed = found.filter(({ time }) => isChecked || time !== 0n);
  return timed.map(({ time }) => ({ time, isChecked })).sort((one, other) => (one.time < other.time ? -1 : 1));
}
