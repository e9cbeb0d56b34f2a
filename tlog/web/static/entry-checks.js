// The checks of one entry, in their order: each reads, recomputes, and compares.
//
// A check gets `found`, what those before it have found, adds to it, and returns what is to be said. It throws MalformedError or
// RefusedError if what was read does not hold, UnansweredError if there is nothing to read.

import { decodeBase64, encodeBase64, encodeHex, encodeText, equalBytes } from "./bytes.js";
import { openCheckpoint, parseCheckpoint, parseHead } from "./checkpoint.js";
import { OPENING_BYTES, commit, verifyCommitment } from "./commitment.js";
import { parseEntry } from "./entry.js";
import { MalformedError, RefusedError } from "./errors.js";
import { findEvidence } from "./evidence.js";
import { leafHash } from "./hashes.js";
import {
  canonicalJson,
  exactMembers,
  isJsonObject,
  MAX_JSON_DEPTH,
  numberMember,
  parseJson,
  textMember,
} from "./json.js";
import { parseNote, parseVerifier } from "./note.js";
import { openWitnessed, openWitnesses, parsePolicy, verifyLog } from "./policy.js";
import { inclusionSteps, verifyConsistency, verifyInclusion } from "./proof.js";
import { checkOrigin, hashesMember } from "./receipt.js";

const JSON_TYPE = "application/json";
const EVENT_MEMBERS = ["entry", "index", "opening", "payload", "payload_type"];

/** The server did not give what was asked for: that says nothing of its truth. */
export class UnansweredError extends Error {
  name = "UnansweredError";
}

/** A log that contradicts what this browser verified before: `files` are texts to keep. */
export class ContradictionError extends RefusedError {
  constructor(message, where, files = []) {
    super(message, where);
    this.files = files;
  }
}

/** Return whom to believe, { origin, keys, policy }, of the text of a vkey or a trust policy; raise MalformedError. */
export async function readTrust(text, origin) {
  if (!/\s/.test(text.trim())) {
    const key = await parseVerifier(text.trim());
    return { origin: key.name, keys: [key] };
  }
  const policy = await parsePolicy(encodeText(text.endsWith("\n") ? text : `${text}\n`));
  const keys = policy.logs.map(({ key }) => key).filter(({ name }) => name === origin);
  if (keys.length === 0) throw new MalformedError(`the trust policy has no log ${origin}`);
  return { origin, keys, policy };
}

/** The checks by name: what each is called, which must have held before, and what it does. */
export const ENTRY_CHECKS = {
  payload: { title: "Payload", needs: [], run: readEvent },
  commitment: { title: "Commitment", needs: ["payload"], run: checkCommitment },
  leaf: { title: "Entry", needs: ["payload"], run: checkLeaf },
  checkpoint: { title: "Signature of the log", needs: [], run: checkCheckpoint },
  inclusion: { title: "Inclusion", needs: ["leaf", "checkpoint"], run: checkInclusion },
  consistency: { title: "Same history as before", needs: ["checkpoint"], run: checkHistory },
  cosignatures: { title: "Cosignatures", needs: ["checkpoint"], run: checkCosignatures },
};

async function readEvent(found) {
  if (found.isLost) return readLost(found);
  const raw = await found.read(`entries/${found.index}`);
  // The event is one level below what the answer is.
  const members = exactMembers(parseJson(raw, MAX_JSON_DEPTH + 1), EVENT_MEMBERS);
  if (BigInt(numberMember(members, "index")) !== found.index) {
    throw new RefusedError(`the server gave entry ${members.index}, where ${found.index} was asked for`, "payload");
  }
  found.rawEntry = encodeText(textMember(members, "entry"));
  found.opening = decodeBase64(textMember(members, "opening"), OPENING_BYTES);
  found.payloadType = textMember(members, "payload_type");
  const isJson = found.payloadType === JSON_TYPE;
  found.isJson = isJson;
  found.value = isJson ? members.payload : null;
  found.payload = isJson ? canonicalJson(members.payload) : decodeBase64(textMember(members, "payload"));
  return `${found.payload.length.toLocaleString("en")} bytes of ${found.payloadType}${isJson ? ", in their RFC 8785 form" : ""}`;
}

// The bundle of C2SP tlog-tiles that has the entry: each entry after its length as two bytes.
async function readLost(found) {
  const { size } = parseHead(parseNote(await found.read("checkpoint")).text);
  const place = Number(found.index % 256n);
  const width = Number(size - found.index) + place;
  const raw = await found.read(`tile/entries/${tilePlace(found.index / 256n)}${width < 256 ? `.p/${width}` : ""}`);
  let start = 0;
  for (let skipped = 0; skipped < place; skipped += 1) start += 2 + raw[start] * 256 + raw[start + 1];
  found.rawEntry = raw.slice(start + 2, start + 2 + raw[start] * 256 + raw[start + 1]);
  return { state: "unchecked", said: "it was lost; what the log says of it is verified all the same" };
}

function tilePlace(number) {
  const digits = String(number);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, "0").match(/.../g);
  return groups.map((group, place) => (place < groups.length - 1 ? `x${group}` : group)).join("/");
}

async function checkCommitment(found) {
  if (found.isLost) return { state: "unchecked", said: "there is no payload that could open it" };
  const { opening, payloadType, payload } = found;
  found.commitment = await commit({ opening, payloadType, payload });
  await verifyCommitment(parseEntry(found.rawEntry).commitment, { opening, payloadType, payload });
  return "the payload, with its opening, is the one that the entry commits to";
}

async function checkLeaf(found) {
  found.leaf = await leafHash(found.rawEntry);
  found.entry = parseEntry(found.rawEntry);
  checkOrigin(found.entry, found.trust);
  return `an entry of ${found.entry.origin} in its only form, by ${found.entry.writer}; its leaf hash is ${encodeBase64(found.leaf)}`;
}

async function checkCheckpoint(found) {
  found.rawHead = await found.read("checkpoint");
  found.head = await openHead(found.rawHead, found.trust);
  // A trust policy may have other segments of the log too, and which of them this is the page says.
  if (!found.head.origin.endsWith(`/segments/${found.segment}`)) {
    throw new RefusedError(`a checkpoint of ${found.head.origin}, where ${found.segment} was asked for`, "checkpoint");
  }
  const ids = found.trust.keys.map(({ id }) => encodeHex(id)).join(" or ");
  return `${found.head.size.toLocaleString("en")} entries, signed by ${found.head.origin} with the key ${ids}`;
}

async function checkInclusion(found) {
  const { index, leaf, head } = found;
  if (index >= head.size) {
    throw new RefusedError(`the signed head has ${head.size} entries, and so none at index ${index}`, "inclusion");
  }
  const proof = await found.readProof(`proof/inclusion/${head.size}/${index}`);
  found.steps = await inclusionSteps({ leaf, index, size: head.size, proof });
  await verifyInclusion({ leaf, index, size: head.size, proof, root: head.root });
  return `${found.steps.length} hashes lead from the entry to the signed root`;
}

async function checkHistory(found) {
  const { head, rawHead, known } = found;
  if (!known?.head)
    return { state: "first", said: "the first head that this browser sees of this log; from now on it remembers" };
  const older = await openHead(encodeText(known.head), found.trust);
  const files = [known.head, new TextDecoder().decode(rawHead)];
  if (head.size < older.size) {
    const said = `the log went back: it showed ${older.size} entries before, and now ${head.size}`;
    throw new ContradictionError(said, "history", files);
  }
  await checkExtends(found, older, files);
  return `the ${older.size.toLocaleString("en")} entries that this browser saw before are the first of these`;
}

async function checkExtends({ head, rawHead, readProof }, older, files) {
  if (head.size === older.size && equalBytes(head.root, older.root)) return;
  const isSame = head.size === older.size;
  const proof = isSame ? [] : await readProof(`proof/consistency/${older.size}/${head.size}`);
  const why = isSame
    ? `of ${head.size} entries it signed the roots ${encodeBase64(older.root)} and ${encodeBase64(head.root)}`
    : await faultOf(older, head, proof);
  if (why === null) return;
  const evidence = await findEvidence(older.note, parseNote(rawHead), proof);
  const what = evidence
    ? "the log shows two histories, and this proves it"
    : "the log does not show that it kept its history";
  throw new ContradictionError(`${what}: ${why}`, "history", evidence ? [evidence] : files);
}

async function faultOf(older, newer, proof) {
  try {
    await verifyConsistency({
      oldSize: older.size,
      newSize: newer.size,
      oldRoot: older.root,
      newRoot: newer.root,
      proof,
    });
  } catch (error) {
    if (error instanceof RefusedError) return error.message;
    throw error;
  }
  return null;
}

async function checkCosignatures(found) {
  const { policy } = found.trust;
  const others = found.head.note.signatures.filter(({ name }) => name !== found.head.origin).map(({ name }) => name);
  if (policy === undefined) {
    const said = others.length
      ? `not checked: lines of ${others.join(", ")}, whose keys this browser does not know`
      : "there are none";
    return { state: "unchecked", said: `${said}. A trust policy, below, says which witnesses to count` };
  }
  const { cosigned, unchecked } = await openWitnesses(found.head.note, policy);
  const rest = unchecked.length ? `; not checked here, for they are by ML-DSA-44: ${unchecked.join(", ")}` : "";
  if (policy.quorum === null) return `${namesOf(cosigned)}; the trust policy asks for no quorum${rest}`;
  return checkQuorum(found, rest);
}

async function checkQuorum(found, rest) {
  let witnessed;
  try {
    witnessed = await openWitnessed(found.rawHead, found.trust.policy);
  } catch (error) {
    if (error.where !== "quorum") throw error;
    // Witnesses are asked after a head is signed: the last that they cosigned may be an older one.
    witnessed = await olderWitnessed(found);
  }
  const since = new Date(Number(witnessed.time) * 1000).toISOString().replace(/\.000Z$/, "Z");
  return `the quorum ${found.trust.policy.quorum}, by ${namesOf(witnessed.cosigned)}, knew of ${witnessed.size} entries at ${since}${rest}`;
}

async function olderWitnessed(found) {
  const witnessed = await openWitnessed(await found.read("checkpoint/cosigned"), found.trust.policy);
  if (witnessed.size <= found.index) {
    throw new UnansweredError(
      `the quorum has cosigned ${witnessed.size} entries so far, and not this one; try again soon`,
    );
  }
  await checkExtends(found, witnessed, [new TextDecoder().decode(found.rawHead)]);
  return witnessed;
}

function namesOf(cosigned) {
  return cosigned.map(([name]) => name).join(", ") || "nobody";
}

async function openHead(raw, { origin, keys, policy }) {
  if (policy === undefined) return openCheckpoint(raw, keys[0]);
  const note = parseNote(raw);
  await verifyLog(note, policy);
  const head = await parseCheckpoint(note.text);
  if (head.origin !== origin) throw new RefusedError(`a checkpoint of ${head.origin}, not of ${origin}`, "checkpoint");
  return { ...head, note };
}

/** Return the hashes of a proof in an answer of the API; raise MalformedError. */
export function parseProof(raw) {
  const members = parseJson(raw);
  if (!isJsonObject(members)) throw new MalformedError("the answer is not that of a proof");
  return hashesMember(members, "proof");
}
