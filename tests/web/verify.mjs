// Runs cases of the form of spec/vectors with the modules of tlog_client/browser.
//
// Each line of standard input is a JSON list of a folder's name and a case; each of standard output says what became of it:
// accepted, malformed, refused, or, if the modules read a good case wrongly or fail otherwise, what went wrong.

import assert from "node:assert";
import { createInterface } from "node:readline";

import { parseManifest } from "../../client/tlog_client/browser/bundle.js";
import {
  decodeBase64,
  decodeHex,
  encodeBase64,
  encodeHex,
  encodeText,
} from "../../client/tlog_client/browser/bytes.js";
import { openBulletin } from "../../client/tlog_client/browser/bulletin.js";
import { openCheckpoint } from "../../client/tlog_client/browser/checkpoint.js";
import { verifyCommitment } from "../../client/tlog_client/browser/commitment.js";
import { openCosignature } from "../../client/tlog_client/browser/cosignature.js";
import { isEd25519 } from "../../client/tlog_client/browser/ed25519.js";
import { parseEntry, parseWriterKey, verifyWriter } from "../../client/tlog_client/browser/entry.js";
import { MalformedError, RefusedError } from "../../client/tlog_client/browser/errors.js";
import { describeEvidence, parseEvidence } from "../../client/tlog_client/browser/evidence.js";
import { leafHash } from "../../client/tlog_client/browser/hashes.js";
import { canonicalText, exactMembers, jsonLines, parseJson } from "../../client/tlog_client/browser/json.js";
import * as noble from "../../client/tlog_client/browser/noble-ed25519.js";
import { openNote, parseNote, parseVerifier } from "../../client/tlog_client/browser/note.js";
import { openWitnessed, parsePolicy } from "../../client/tlog_client/browser/policy.js";
import {
  prefixRoot,
  verifyConsistency,
  verifyInclusion,
  verifyRange,
  verifySubtree,
} from "../../client/tlog_client/browser/proof.js";
import { parseReceipt, verifyReceipt } from "../../client/tlog_client/browser/receipt.js";
import { verifySubset } from "../../client/tlog_client/browser/subset.js";
import { visibleText } from "../../client/tlog_client/browser/visible.js";

// https://www.rfc-editor.org/rfc/rfc8032: a point of order 8, by its y.
const ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
const one = decodeHex;
const many = (hashes) => hashes.map(decodeHex);
const bytes = (found, member) =>
  `${member}_hex` in found ? decodeHex(found[`${member}_hex`]) : encodeText(found[member]);

const CHECKS = {
  async inclusion({ leaf, index, size, proof, root }) {
    await verifyInclusion({ leaf: one(leaf), index, size, proof: many(proof), root: one(root) });
  },
  async consistency({ old_size: oldSize, new_size: newSize, old_root: oldRoot, new_root: newRoot, proof }) {
    await verifyConsistency({ oldSize, newSize, oldRoot: one(oldRoot), newRoot: one(newRoot), proof: many(proof) });
  },
  async subtree({ start, end, subtree, size, proof, root }) {
    await verifySubtree({ start, end, subtree: one(subtree), size, proof: many(proof), root: one(root) });
  },
  async subset({ indexes, leaves, size, proof, root }) {
    verifySubset({ indexes, leaves: many(leaves), size: BigInt(size), proof: many(proof), root: one(root) });
  },
  async prefix({ old_size: oldSize, new_size: newSize, old_root: oldRoot, new_root: newRoot, proof }) {
    const root = await prefixRoot({ oldSize, newSize, proof: many(proof), newRoot: one(newRoot) });
    assert.strictEqual(encodeHex(root), oldRoot);
  },
  async range({ leaves, start, size, left, right, root }) {
    await verifyRange({ leaves: many(leaves), start, size, left: many(left), right: many(right), root: one(root) });
  },
  async vkey({ vkey, name, key_id: id, type, public: key }) {
    const found = await parseVerifier(vkey);
    const read = [found.name, encodeHex(found.id), found.type, encodeHex(found.public), found.vkey];
    assert.deepStrictEqual(read, [name, id, type, key, vkey]);
  },
  async note(found) {
    const keys = await Promise.all(found.vkeys.map(parseVerifier));
    const { signatures } = await openNote(parseNote(bytes(found, "note")), keys);
    assert.deepStrictEqual(
      signatures.map((line) => line.name),
      found.signers,
    );
  },
  async checkpoint(found) {
    const { origin, size, root } = await openCheckpoint(bytes(found, "checkpoint"), await parseVerifier(found.vkey));
    assert.deepStrictEqual([origin, String(size), encodeHex(root)], [found.origin, found.size, found.root]);
  },
  async cosignature(found) {
    const { time } = await openCosignature(parseNote(bytes(found, "note")), await parseVerifier(found.vkey));
    assert.strictEqual(Number(time), found.time);
  },
  async bulletin(found) {
    const said = await openBulletin(bytes(found, "bulletin"), await parseVerifier(found.vkey));
    assert.deepStrictEqual(bulletinRead(said), bulletinDue(found));
  },
  // Not of spec/vectors: what the core says of a bulletin that it refuses.
  async refusedBulletin({ bulletin, vkey, said }) {
    const key = await parseVerifier(vkey);
    await assert.rejects(openBulletin(encodeText(bulletin), key), ({ message }) => said.includes(message));
  },
  async commitment(found) {
    const opened = { opening: one(found.opening), payloadType: found.payload_type, payload: bytes(found, "payload") };
    await verifyCommitment(one(found.commitment), opened);
  },
  async entry(found) {
    const raw = bytes(found, "entry");
    const parsed = parseEntry(raw);
    assert.strictEqual(encodeHex(await leafHash(raw)), found.leaf_hash);
    assert.strictEqual(parsed.signed !== null, "writer_vkey" in found);
    if (parsed.signed !== null) await verifyWriter(parsed, [await parseWriterKey(found.writer_vkey)]);
  },
  async writer(found) {
    const keys = await Promise.all(found.writer_vkeys.map(parseWriterKey));
    await verifyWriter(parseEntry(bytes(found, "entry")), keys);
  },
  async policy(found) {
    const opened = await openWitnessed(bytes(found, "checkpoint"), await parsePolicy(bytes(found, "policy")));
    const cosigned = opened.cosigned.map(([name, time]) => [name, Number(time)]);
    const time = opened.time === null ? null : Number(opened.time);
    assert.deepStrictEqual([Object.fromEntries(cosigned), time], [found.cosigned, found.time]);
  },
  async evidence(found) {
    const policy = await parsePolicy(bytes(found, "policy"));
    const evidence = await parseEvidence(bytes(found, "evidence"));
    assert.strictEqual(await describeEvidence(evidence, policy, { now: found.now }), found.sentence);
  },
  async receipt(found) {
    const payload = "payload" in found || "payload_hex" in found ? bytes(found, "payload") : undefined;
    await verifyReceipt(parseReceipt(bytes(found, "receipt")), { key: await parseVerifier(found.vkey), payload });
  },
  async json(found) {
    assert.strictEqual(canonicalText(parseJson(bytes(found, "json"))), found.canonical);
  },
  // Not of spec/vectors: a signature whose first half has a part of this order beside the right one.
  async torsion({ order }) {
    const [key, message] = [await noble.keygenAsync(new Uint8Array(32)), encodeText("message")];
    const [nonce, { scalar }] = [5n, await noble.utils.getExtendedPublicKeyAsync(key.secretKey)];
    const part = noble.Point.fromHex(ORDER_8).multiply(8n / BigInt(order), false);
    const r = noble.Point.BASE.multiply(nonce).add(part).toBytes();
    const digest = await crypto.subtle.digest("SHA-512", new Uint8Array([...r, ...key.publicKey, ...message]));
    const challenge = littleEndian(new Uint8Array(digest));
    const s = decodeHex(
      noble.etc
        .mod(nonce + challenge * scalar, noble.Point.CURVE().n)
        .toString(16)
        .padStart(64, "0"),
    );
    const signature = new Uint8Array([...r, ...s.reverse()]);
    assert(await noble.verifyAsync(signature, message, key.publicKey, { zip215: false }));
    if (!(await isEd25519(signature, message, key.publicKey))) throw new RefusedError("wrong signature", "signature");
  },
  async members({ json, names, together }) {
    exactMembers(parseJson(encodeText(json)), names, together);
  },
  async manifest(found) {
    const { origin, reserved } = parseManifest(bytes(found, "manifest"));
    const spans = Object.fromEntries(reserved.map(({ name, looked }) => [name, looked]));
    assert.deepStrictEqual([origin, spans], [found.origin, found.reserved]);
  },
  async lines({ text, lines }) {
    assert.strictEqual(jsonLines(text), lines);
  },
  async visible({ text, keep, shown }) {
    assert.strictEqual(visibleText(text, keep), shown);
  },
  async base64({ text, data }) {
    assert.strictEqual(encodeHex(decodeBase64(text)), data);
    assert.strictEqual(encodeBase64(one(data)), text);
  },
};

function bulletinRead({ origin, time, head, gossip, convicted, tallies }) {
  return {
    origin,
    time: String(time),
    head: head && { size: String(head.size), root: encodeHex(head.root), time: String(head.time) },
    gossip: gossip && { time: String(gossip.time), asked: Number(gossip.asked), heard: Number(gossip.heard) },
    convicted,
    findings: tallies.map(({ found, kind, number }) => ({ class: found, kind, number: String(number) })),
  };
}

function bulletinDue({ origin, time, head, gossip, convicted, findings }) {
  return { origin, time, head, gossip, convicted, findings };
}

function littleEndian(data) {
  return BigInt(`0x${encodeHex(Uint8Array.from(data).reverse())}`);
}

async function outcome(folder, found) {
  if (!Object.hasOwn(CHECKS, folder)) return "unknown";
  try {
    await CHECKS[folder](found);
  } catch (error) {
    if (error instanceof MalformedError) return "malformed";
    if (error instanceof RefusedError) return "refused";
    return `failed: ${error.stack}`;
  }
  return "accepted";
}

if (process.argv.includes("--without-ed25519")) {
  // As in a browser without it: https://w3c.github.io/webcrypto/#SubtleCrypto-method-importKey
  crypto.subtle.importKey = async () => {
    throw new DOMException("Unrecognized name.", "NotSupportedError");
  };
}
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await outcome(...JSON.parse(line))));
}
