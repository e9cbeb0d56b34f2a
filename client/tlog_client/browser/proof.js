// Merkle proofs: inclusion, consistency, subtree, prefix and range (RFC 9162 section 2.1, spec/receipt.md).
//
// Inclusion and consistency are cases of the subtree proof (draft-ietf-plants-merkle-tree-certs, "Subtrees"): one entry is the
// subtree [index, index + 1), an older tree is [0, oldSize). Sizes and indexes are BigInts, or whole numbers.

import { encodeBase64, equalBytes } from "./bytes.js";
import { RefusedError } from "./errors.js";
import { foldHashes, HASH_BYTES, nodeHash } from "./hashes.js";

/** Check that `leaf` is at `index` in the tree of `size` and `root`; raise RefusedError. Return the steps up to the root. */
export async function verifyInclusion({ leaf, index, size, proof, root }) {
  const [start, end] = [BigInt(index), BigInt(index) + 1n];
  return verifyPart(`inclusion proof of entry ${index}`, { start, end, subtree: leaf, size, proof, root });
}

/** Return the steps from a leaf up, each { sibling, result } over the leaves [low, high), whatever root they lead to. */
export async function inclusionSteps({ leaf, index, size, proof }) {
  const [what, start] = [`inclusion proof of entry ${index}`, BigInt(index)];
  checkHashes(what, [leaf, ...proof]);
  if (!(0n <= start && start < BigInt(size))) throw refusal(what, `a tree of ${size} entries has no such entry`);
  return (await climb(what, pathTo(start, start + 1n, BigInt(size)), start, leaf, proof)).steps;
}

/** Check that the older tree is a prefix of the newer one; raise RefusedError. Return the steps. */
export async function verifyConsistency({ oldSize, newSize, oldRoot, newRoot, proof }) {
  const what = `consistency proof from ${oldSize} to ${newSize} entries`;
  return verifyPart(what, { start: 0n, end: oldSize, subtree: oldRoot, size: newSize, proof, root: newRoot });
}

/** Check that the valid subtree [start, end) with hash `subtree` is part of the tree; raise RefusedError. */
export async function verifySubtree({ start, end, subtree, size, proof, root }) {
  return verifyPart(`subtree proof of [${start}, ${end})`, { start, end, subtree, size, proof, root });
}

/** Return the root of the first `oldSize` entries of a tree, by a prefix proof (spec/evidence.md); raise RefusedError. */
export async function prefixRoot({ oldSize, newSize, proof, newRoot }) {
  const what = `prefix proof of ${oldSize} of ${newSize} entries`;
  const [end, size] = [BigInt(oldSize), BigInt(newSize)];
  checkHashes(what, [newRoot, ...proof]);
  if (!(0n < end && end < size)) throw refusal(what, `a tree of ${size} entries has no prefix of ${end} to prove`);
  if (proof.length === 0) throw refusal(what, "too short");
  const { inner, outer } = await climb(what, pathTo(0n, end, size), 0n, proof[0], proof.slice(1));
  matchHash(what, outer, newRoot, "the root of the checkpoint");
  return inner;
}

/** Check that `leaves` stand at `start` and after it in the tree of `size` and `root`; raise RefusedError. */
export async function verifyRange({ leaves, start, size, left, right, root }) {
  const [first, last, total] = [BigInt(start), BigInt(start) + BigInt(leaves.length), BigInt(size)];
  const what = `range proof of entries ${first} to before ${last}`;
  checkHashes(what, [root, ...leaves, ...left, ...right]);
  if (!(0n <= first && first < last && last <= total)) throw refusal(what, `no range of a tree of ${total} entries`);
  const [before, after] = [nodesBetween(0n, first), nodesBetween(last, total)];
  if (left.length !== before.length || right.length !== after.length) throw refusal(what, "the wrong number of hashes");
  const given = [...left.map((hash, place) => [before[place].level, hash]), ...leaves.map((hash) => [0, hash])];
  const peaks = [];
  for (const [level, hash] of [...given, ...right.map((hash, place) => [after[place].level, hash])]) {
    await pushPeak(peaks, level, hash);
  }
  matchHash(what, await foldHashes(peaks.map((peak) => peak.hash)), root, "the root of the checkpoint");
}

/** Return { start, level } of the largest complete subtrees that cover [start, end), left to right. */
export function nodesBetween(start, end) {
  const nodes = [];
  while (start < end) {
    let level = 0;
    // As wide as the place allows, and as what is left.
    while (start % (2n << BigInt(level)) === 0n && start + (2n << BigInt(level)) <= end) level += 1;
    nodes.push({ start, level });
    start += 1n << BigInt(level);
  }
  return nodes;
}

async function verifyPart(what, { start, end, subtree, size, proof, root }) {
  [start, end, size] = [BigInt(start), BigInt(end), BigInt(size)];
  checkHashes(what, [subtree, root, ...proof]);
  if (!isSubtree(start, end) || end > size) throw refusal(what, `[${start}, ${end}) is no subtree of ${size} entries`);
  if (size === 0n) matchHash(what, await foldHashes([]), root, "the root of the checkpoint");
  if (start === end) {
    if (proof.length > 0) throw refusal(what, "too long");
    matchHash(what, await foldHashes([]), subtree, "the hash that is to be proven");
    return [];
  }
  const path = pathTo(start, end, size);
  if (!path.isWhole && proof.length === 0) throw refusal(what, "too short");
  const [seed, rest] = path.isWhole ? [subtree, proof] : [proof[0], proof.slice(1)];
  const { inner, outer, steps } = await climb(what, path, start, seed, rest);
  matchHash(what, inner, subtree, "the hash that is to be proven");
  matchHash(what, outer, root, "the root of the checkpoint");
  return steps;
}

// The way from the root down to [start, end), or to the last complete subtree in it, as the siblings from there up.
function pathTo(start, end, size) {
  const siblings = [];
  let [low, high, from, isWhole] = [0n, size, start, true];
  while (low !== from || high !== end) {
    const middle = low + splitWidth(high - low);
    if (end <= middle) {
      siblings.push({ low: middle, high, isLeft: false });
      high = middle;
    } else {
      siblings.push({ low, high: middle, isLeft: true });
      // It reaches across the middle: what is left of it is a part that the verifier does not hold.
      isWhole = isWhole && from >= middle;
      low = middle;
      from = from > middle ? from : middle;
    }
  }
  return { siblings: siblings.reverse(), isWhole, low, high };
}

// `inner` rebuilds the subtree from what stands in it, `outer` the whole tree. Each step says which leaves, [low, high), its
// sibling and its result are over: that is what a picture of the proof shows.
async function climb(what, { siblings, low, high }, start, seed, hashes) {
  if (hashes.length !== siblings.length) {
    const due = `${hashes.length} hashes, where ${siblings.length} are due`;
    throw refusal(what, `${hashes.length < siblings.length ? "too short" : "too long"}: ${due}`);
  }
  const steps = [];
  let [inner, outer] = [seed, seed];
  for (const [place, { isLeft, ...range }] of siblings.entries()) {
    const sibling = { ...range, hash: hashes[place], isLeft };
    if (isLeft && range.low >= start) inner = await nodeHash(sibling.hash, inner);
    outer = await (isLeft ? nodeHash(sibling.hash, outer) : nodeHash(outer, sibling.hash));
    [low, high] = isLeft ? [range.low, high] : [low, range.high];
    steps.push({ sibling, result: { low, high, hash: outer } });
  }
  return { inner, outer, steps };
}

async function pushPeak(peaks, level, hash) {
  while (peaks.at(-1)?.level === level) {
    hash = await nodeHash(peaks.pop().hash, hash);
    level += 1;
  }
  peaks.push({ level, hash });
}

// It starts at a multiple of its width, rounded up to a power of two.
function isSubtree(start, end) {
  let width = 1n;
  while (width < end - start) width *= 2n;
  return 0n <= start && start <= end && start % width === 0n;
}

// The largest power of two smaller than `width` (RFC 9162 section 2.1.1).
function splitWidth(width) {
  let split = 1n;
  while (split * 2n < width) split *= 2n;
  return split;
}

function checkHashes(what, hashes) {
  if (hashes.some((hash) => hash.length !== HASH_BYTES)) throw refusal(what, "a hash has not 32 bytes");
}

function matchHash(what, computed, expected, whose) {
  if (!equalBytes(computed, expected)) {
    throw refusal(what, `it leads to ${encodeBase64(computed)}, but ${whose} is ${encodeBase64(expected)}`);
  }
}

function refusal(what, why) {
  return new RefusedError(`the ${what} does not hold: ${why}`, what);
}
