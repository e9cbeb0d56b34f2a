// Receipts: all that is needed, with the log's key, to show offline that an event was logged (spec/receipt.md).

import { decodeBase64, encodeText } from "./bytes.js";
import { openCheckpoint } from "./checkpoint.js";
import { OPENING_BYTES, verifyCommitment } from "./commitment.js";
import { parseEntry, verifyWriter } from "./entry.js";
import { MalformedError, RefusedError } from "./errors.js";
import { HASH_BYTES, leafHash } from "./hashes.js";
import { exactMembers, numberMember, parseJson, textMember } from "./json.js";
import { openWitnessed } from "./policy.js";
import { verifyInclusion } from "./proof.js";

const RECEIPT_MEMBERS = ["checkpoint", "entry", "index", "opening", "payload_type", "proof"];

/** Return the receipt in bytes, with nothing checked but its form; raise MalformedError. */
export function parseReceipt(raw) {
  const members = exactMembers(parseJson(raw), RECEIPT_MEMBERS);
  return {
    entry: encodeText(textMember(members, "entry")),
    payloadType: textMember(members, "payload_type"),
    opening: decodeBase64(textMember(members, "opening"), OPENING_BYTES),
    index: numberMember(members, "index"),
    checkpoint: encodeText(textMember(members, "checkpoint")),
    proof: hashesMember(members, "proof"),
  };
}

/**
 * Check a receipt of the log `key`, and that `payload`, if given, is what was logged; raise RefusedError or MalformedError.
 *
 * `policy`, in place of `key`, is a trust policy, whose quorum must have cosigned. Return { checkpoint, entry, steps }.
 */
export async function verifyReceipt(receipt, { key, policy, payload, writerKeys = [] }) {
  const open =
    policy === undefined ? openCheckpoint(receipt.checkpoint, key) : openWitnessed(receipt.checkpoint, policy);
  const checkpoint = await open;
  const entry = parseEntry(receipt.entry);
  checkOrigin(entry, checkpoint);
  await verifyWriter(entry, writerKeys);
  const { index, proof, opening, payloadType } = receipt;
  const leaf = await leafHash(receipt.entry);
  const steps = await verifyInclusion({ leaf, index, size: checkpoint.size, proof, root: checkpoint.root });
  if (payload !== undefined) await verifyCommitment(entry.commitment, { opening, payloadType, payload });
  return { checkpoint, entry, steps };
}

/** Check that an entry is one of the log of a checkpoint; raise RefusedError. */
export function checkOrigin(entry, checkpoint) {
  if (entry.origin !== checkpoint.origin) {
    throw new RefusedError(`the entry belongs to ${entry.origin}, not to ${checkpoint.origin}`, "entry");
  }
}

/** Return a member that is a list of hashes in base64; raise MalformedError. */
export function hashesMember(members, name) {
  const values = members[name];
  if (!Array.isArray(values) || !values.every((value) => typeof value === "string")) {
    throw new MalformedError(`${name} is not a list of strings`);
  }
  return values.map((value) => decodeBase64(value, HASH_BYTES));
}
