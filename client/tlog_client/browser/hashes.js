// The hashes of a tree (RFC 6962 section 2.1).

import { concatBytes } from "./bytes.js";

export const HASH_BYTES = 32;

export async function sha256(...parts) {
  // A whole file is not copied first.
  const whole = parts.length === 1 ? parts[0] : concatBytes(...parts);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

/** Return the hash of an entry as a leaf: SHA-256(0x00 || entry). */
export function leafHash(entry) {
  return sha256([0], entry);
}

/** Return the hash of a node: SHA-256(0x01 || left || right). */
export function nodeHash(left, right) {
  return sha256([1], left, right);
}

/** Return the root over complete subtrees of falling size, given left to right; of none, that of no entries. */
export async function foldHashes(hashes) {
  if (hashes.length === 0) return sha256();
  let root = hashes.at(-1);
  for (const left of hashes.slice(0, -1).reverse()) root = await nodeHash(left, root);
  return root;
}
