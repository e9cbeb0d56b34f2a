// Signed notes, and the text form of public keys (C2SP signed-note).
//
// A key is { name, type, public, id, vkey }; a note is { text, signatures }, each signature { name, keyId, blob }.

import { concatBytes, decodeBase64, decodeText, encodeBase64, encodeHex, encodeText, equalBytes } from "./bytes.js";
import { isEd25519, isWeakKey } from "./ed25519.js";
import { MalformedError, RefusedError } from "./errors.js";
import { sha256 } from "./hashes.js";

export const NOTE_KEY = 1;
export const COSIGNATURE_KEY = 4;
/** ML-DSA-44, which WebCrypto does not have: what such a key signed is never checked here. */
export const SUBTREE_KEY = 6;

const KEY_ID_BYTES = 4;
const PUBLIC_KEY_BYTES = { [NOTE_KEY]: 32, [COSIGNATURE_KEY]: 32, [SUBTREE_KEY]: 1312 };
const MAX_NOTE_BYTES = 1_000_000;
const MAX_SIGNATURES = 100;
const CONTROL_CHARACTER = /[\0-\x09\x0b-\x1f]/;
const SIGNATURE_LINE = /^\u2014 ([^ \n]+) ([A-Za-z0-9+/=]+)$/;

/** Return the key of a vkey; raise MalformedError if its ID, type or point is not right. */
export async function parseVerifier(vkey) {
  const [name, idText, ...rest] = vkey.split("+");
  if (rest.length === 0) throw new MalformedError("a key is <name>+<key ID>+<base64>");
  checkName(name);
  const typed = decodeBase64(rest.join("+"));
  checkPublicKey(typed[0], typed.subarray(1));
  const id = (await sha256(encodeText(`${name}\n`), typed)).subarray(0, KEY_ID_BYTES);
  if (encodeHex(id) !== idText) {
    throw new MalformedError("the key ID of the verifier key does not belong to it; copy the key again");
  }
  return { name, type: typed[0], public: typed.subarray(1), id, vkey };
}

/** Check a signature over `message`; RefusedError if it is wrong, or by a key that cannot be checked here. */
export async function verifySignature(key, message, signature, where) {
  if (key.type === SUBTREE_KEY) {
    throw new RefusedError(`what ${key.name} signs by ML-DSA-44 is not checked here`, where);
  }
  if (!(await isEd25519(signature, message, key.public))) {
    throw new RefusedError(`wrong signature by ${key.name} (key ID ${encodeHex(key.id)})`, where);
  }
}

/** Return the note in bytes, with no signature checked; raise MalformedError. */
export function parseNote(raw) {
  if (raw.length > MAX_NOTE_BYTES) throw new MalformedError(`a note has at most ${MAX_NOTE_BYTES} bytes`);
  const whole = decodeText(raw, "a note");
  const blank = whole.lastIndexOf("\n\n");
  if (blank < 0 || CONTROL_CHARACTER.test(whole)) {
    throw new MalformedError("a note is text, an empty line, and signature lines");
  }
  const note = { text: whole.slice(0, blank + 1), signatures: parseSignatures(whole.slice(blank + 2)) };
  if (formatNote(note) !== whole) throw new MalformedError("a signature line of the note is not in its only form");
  return note;
}

/** Return a note as it is stored and sent, as text. */
export function formatNote(note) {
  const line = ({ name, keyId, blob }) => `\u2014 ${name} ${encodeBase64(concatBytes(keyId, blob))}\n`;
  return `${note.text}\n${note.signatures.map(line).join("")}`;
}

/** Return the signature lines of a note under the name and ID of a key. */
export function linesOf(note, key) {
  return note.signatures.filter((line) => line.name === key.name && equalBytes(line.keyId, key.id));
}

/** Return the note with only the lines of `keys`, all of them checked; RefusedError if there is none, or one is wrong. */
export async function openNote(note, keys, where = "signature") {
  const known = keys.filter((key) => key.type === NOTE_KEY);
  const isKnown = (line) => known.find((key) => key.name === line.name && equalBytes(key.id, line.keyId));
  const signatures = note.signatures.filter(isKnown);
  const message = encodeText(note.text);
  for (const line of signatures) await verifySignature(isKnown(line), message, line.blob, where);
  if (signatures.length === 0)
    throw new RefusedError(`not signed by ${keys.map((key) => key.name).join(" or ")}`, where);
  return { text: note.text, signatures };
}

function parseSignatures(text) {
  const lines = text.split("\n");
  if (lines.pop() !== "" || lines.length === 0 || lines.length > MAX_SIGNATURES) {
    throw new MalformedError(`a note has between 1 and ${MAX_SIGNATURES} signatures, each on a line`);
  }
  return lines.map(parseSignature);
}

function parseSignature(line) {
  const [, name, encoded] = SIGNATURE_LINE.exec(line) ?? [];
  if (name === undefined) throw new MalformedError("a signature line is a dash, a key name and base64");
  checkName(name);
  const data = decodeBase64(encoded);
  if (data.length <= KEY_ID_BYTES) throw new MalformedError("a signature line is too short");
  return { name, keyId: data.subarray(0, KEY_ID_BYTES), blob: data.subarray(KEY_ID_BYTES) };
}

function checkName(name) {
  if (!name || /[+\p{White_Space}\p{Surrogate}]/u.test(name) || CONTROL_CHARACTER.test(name)) {
    throw new MalformedError("a key name is Unicode text, not empty, without white space and plus");
  }
}

function checkPublicKey(type, publicKey) {
  const length = PUBLIC_KEY_BYTES[type];
  if (length === undefined) throw new MalformedError(`a key of unknown type ${type ?? "(none)"}`);
  if (publicKey.length !== length) throw new MalformedError(`a key of type ${type} has ${length} bytes`);
  if (type !== SUBTREE_KEY && isWeakKey(publicKey)) {
    throw new MalformedError("a weak public key: not canonical, or of small order");
  }
}
