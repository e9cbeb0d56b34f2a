// Checkpoints: a log's statement that at this size it has this root (C2SP tlog-checkpoint), in exactly three lines.

import { decodeBase64, encodeHex, equalBytes, parseDecimal } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { foldHashes, HASH_BYTES } from "./hashes.js";
import { openNote, parseNote } from "./note.js";

/** Return { origin, size, root } of a note's text, the size a BigInt; raise MalformedError. */
export async function parseCheckpoint(text) {
  const head = parseHead(text);
  if (head.size === 0n && !equalBytes(head.root, await foldHashes([]))) {
    throw new MalformedError("a checkpoint of size 0 has the root of no entries");
  }
  return head;
}

/** The same, be it of size 0 with a root that no tree has: for who tells a lie from what is no checkpoint. */
export function parseHead(text) {
  const [origin, size, root, ...rest] = text.split("\n");
  if (rest.length !== 1 || rest[0] !== "" || origin === "") {
    throw new MalformedError("a checkpoint is three lines: origin, size and root");
  }
  return { origin, size: parseDecimal(size), root: decodeBase64(root, HASH_BYTES) };
}

/** Return the checkpoint in bytes, with its note, after its signature by the log `key`, whose name is the origin. */
export async function openCheckpoint(raw, key) {
  const note = parseNote(raw);
  checkLines(note);
  await openNote(note, [key], "checkpoint");
  const checkpoint = await parseCheckpoint(note.text);
  if (checkpoint.origin !== key.name) {
    throw new RefusedError(`a checkpoint of ${checkpoint.origin}, not of ${key.name}`, "checkpoint");
  }
  return { ...checkpoint, note };
}

/** Raise MalformedError if a key has two signature lines, which no checkpoint has. */
export function checkLines(note) {
  const lines = note.signatures.map((line) => `${line.name} ${encodeHex(line.keyId)}`);
  if (new Set(lines).size !== lines.length) throw new MalformedError("a checkpoint has two signature lines of one key");
}
