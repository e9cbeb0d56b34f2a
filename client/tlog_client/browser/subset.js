// Subset proofs: that chosen leaves, be they neighbours or not, are in a tree (spec/bundle.md, "Subset proofs").

import { encodeBase64, equalBytes } from "./bytes.js";
import { RefusedError } from "./errors.js";
import { HASH_BYTES } from "./hashes.js";
import { Hasher } from "./sha256.js";

const SUBSET = "subset proof";
const NODE_PREFIX = Uint8Array.of(1);

/** Check that `leaves` stand at `indexes`, numbers that rise, in the tree of `size` (a BigInt) and `root`; raise RefusedError. */
export function verifySubset({ indexes, leaves, size, proof, root }) {
  if ([...leaves, ...proof, root].some((hash) => hash.length !== HASH_BYTES)) refuseSubset("a hash has not 32 bytes");
  const end = Number(size);
  const rises = indexes.every((index, place) => (place ? indexes[place - 1] : -1) < index && index < end);
  if (!indexes.length || indexes.length !== leaves.length || !rises || !Number.isSafeInteger(end)) {
    refuseSubset(`the indexes are not those of ${leaves.length} leaves of a tree of ${size} entries, in order`);
  }
  const hasher = new Hasher();
  let used = 0;
  // [low, high) is a subtree, of which the leaves from `first` to before `last` are chosen.
  const walk = (low, high, first, last) => {
    if (first === last) {
      if (used === proof.length) refuseSubset("the proof is too short");
      return proof[used++];
    }
    if (high - low === 1) return leaves[first];
    const middle = low + largestPower(high - low);
    const cut = firstFrom(indexes, middle, first, last);
    const left = walk(low, middle, first, cut);
    const right = walk(middle, high, cut, last);
    return hasher.start().add(NODE_PREFIX).add(left).add(right).digest();
  };
  const found = walk(0, end, 0, indexes.length);
  if (used < proof.length) refuseSubset("the proof is too long");
  if (!equalBytes(found, root)) {
    refuseSubset(`it leads to ${encodeBase64(found)}, but the root of the checkpoint is ${encodeBase64(root)}`);
  }
}

// The largest power of two smaller than `width`.
function largestPower(width) {
  let power = 1;
  while (2 * power < width) power *= 2;
  return power;
}

// The first place in [first, last) whose index is not below `bound`; `last` if there is none.
function firstFrom(indexes, bound, first, last) {
  while (first < last) {
    const middle = (first + last) >> 1;
    if (indexes[middle] < bound) first = middle + 1;
    else last = middle;
  }
  return first;
}

function refuseSubset(why) {
  throw new RefusedError(`the ${SUBSET} does not hold: ${why}`, SUBSET);
}
