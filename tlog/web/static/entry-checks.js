// The checks of one entry, in their order: each reads, recomputes, and compares.
//
// A check gets `found`, what those before it have found, adds to it, and returns what is to be said. It throws MalformedError or
// RefusedError if what was read does not hold, UnansweredError if there is nothing to read.

import { decodeBase64, encodeBase64, encodeText } from "./bytes.js";
import { parseHead } from "./checkpoint.js";
import { OPENING_BYTES, commit, verifyCommitment } from "./commitment.js";
import { parseEntry } from "./entry.js";
import { RefusedError } from "./errors.js";
import { leafHash } from "./hashes.js";
import { canonicalJson, exactMembers, MAX_JSON_DEPTH, numberMember, parseJson, textMember } from "./json.js";
import { checkCheckpoint, checkExtends, checkHistory, UnansweredError } from "./log-checks.js";
import { parseNote } from "./note.js";
import { openWitnessed, openWitnesses } from "./policy.js";
import { inclusionSteps, verifyInclusion } from "./proof.js";
import { checkOrigin } from "./receipt.js";

const JSON_TYPE = "application/json";
const EVENT_MEMBERS = ["entry", "index", "opening", "payload", "payload_type"];

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
