// Trust policies: which logs to believe, and which witnesses must have cosigned (C2SP tlog-policy, spec/trust-policy.md).
//
// A policy is { logs: [{ key, url }], witnesses: [{ name, key, url }], groups: [{ name, threshold, members }], quorum }, the
// quorum null if nobody must have cosigned. Names are bytes: what is not UTF-8 stands as lone surrogates.

import { decodeText, encodeText, equalBytes, parseDecimal } from "./bytes.js";
import { checkLines, parseCheckpoint, parseHead } from "./checkpoint.js";
import { openCosignatures } from "./cosignature.js";
import { MalformedError, RefusedError } from "./errors.js";
import { COSIGNATURE_KEY, NOTE_KEY, openNote, parseNote, parseVerifier, SUBTREE_KEY } from "./note.js";

const MAX_POLICY_BYTES = 1 << 20;
const MAX_ORIGIN_BYTES = 255;
const NO_QUORUM = "none";

/** Return the trust policy of a file; raise MalformedError, which names the line. */
export async function parsePolicy(raw) {
  const reader = new PolicyReader();
  for (const [number, words] of policyStatements(raw)) {
    try {
      await reader.read(words);
    } catch (error) {
      throw error instanceof MalformedError ? new MalformedError(`line ${number}: ${error.message}`) : error;
    }
  }
  const { logs, witnesses, groups, quorums } = reader;
  if (quorums.length !== 1) {
    throw new MalformedError("a trust policy has one quorum line; write quorum none to ask for no witnesses");
  }
  return { logs, witnesses, groups, quorum: quorums[0] === NO_QUORUM ? null : quorums[0] };
}

/** Check that the note is a head signed by a log of the policy, by the name that is its origin. Witnesses are not looked at. */
export async function verifyLog(note, policy) {
  checkLines(note);
  const { origin } = parseHead(note.text);
  const keys = policy.logs.map((log) => log.key).filter((key) => key.name === origin);
  if (keys.length === 0) throw new RefusedError(`the trust policy has no log ${origin}`, "checkpoint");
  await openNote(note, keys, "checkpoint");
}

/**
 * Return the checkpoint in bytes, with its note, after a log of the policy signed it and the quorum cosigned it.
 *
 * `cosigned` has [name, time] of each witness that did; `unchecked` the names of those whose lines, by ML-DSA-44, were not
 * checked, and count for nothing; `time` is the quorum time, null without a quorum.
 */
export async function openWitnessed(raw, policy) {
  const note = parseNote(raw);
  await verifyLog(note, policy);
  const { cosigned, unchecked } = await openWitnesses(note, policy);
  const time = quorumTime(policy, new Map(cosigned));
  if (policy.quorum !== null && time === null) {
    const names = cosigned.map(([name]) => name).join(", ") || "nobody";
    const rest = unchecked.length ? `; not checked here, for they are by ML-DSA-44: ${unchecked.join(", ")}` : "";
    throw new RefusedError(`cosigned by ${names}, which is not the quorum ${policy.quorum}${rest}`, "quorum");
  }
  return { ...(await parseCheckpoint(note.text)), note, cosigned, unchecked, time };
}

/** Return who of the policy's witnesses cosigned a note, be they no quorum; raise for a wrong line of any of them. */
export async function openWitnesses(note, policy) {
  const [cosigned, unchecked] = [[], []];
  for (const { name, key } of policy.witnesses) {
    const latest = (await openCosignatures(note, key)).at(-1);
    if (latest?.isChecked) cosigned.push([name, latest.time]);
    else if (latest) unchecked.push(name);
  }
  return { cosigned, unchecked };
}

/** Return the latest time such that who cosigned then or later, by `times`, make the quorum; null if they make none. */
export function quorumTime(policy, times) {
  const reached = new Map(times);
  for (const { name, threshold, members } of policy.groups) {
    const latest = members.filter((member) => reached.has(member)).map((member) => reached.get(member));
    latest.sort((one, other) => (one < other ? 1 : -1));
    if (latest.length >= threshold) reached.set(name, latest[threshold - 1]);
  }
  return policy.quorum === null ? null : (reached.get(policy.quorum) ?? null);
}

// What the lines so far have said.
class PolicyReader {
  logs = [];
  witnesses = [];
  groups = [];
  quorums = [];
  #names = new Set();
  #members = new Set();
  #roles = [];

  async read([word, ...rest]) {
    if (word === "log" && (rest.length === 1 || rest.length === 2)) await this.#log(...rest);
    else if (word === "witness" && (rest.length === 2 || rest.length === 3)) await this.#witness(...rest);
    else if (word === "group" && rest.length >= 3) this.#group(...rest);
    else if (word === "quorum" && rest.length === 1) this.#quorum(...rest);
    else throw new MalformedError("expected log, witness, group or quorum, and what belongs to it");
  }

  async #log(vkey, url = "") {
    const key = await this.#key(vkey, "log", [NOTE_KEY]);
    if (encodeText(key.name).length > MAX_ORIGIN_BYTES) {
      throw new MalformedError(`the origin of a log has at most ${MAX_ORIGIN_BYTES} bytes`);
    }
    this.logs.push({ key, url });
  }

  async #witness(name, vkey, url = "") {
    this.#define(name);
    this.witnesses.push({ name, key: await this.#key(vkey, "witness", [COSIGNATURE_KEY, SUBTREE_KEY]), url });
  }

  #group(name, count, ...members) {
    // Before its own name is there, so that no group is a member of itself.
    for (const member of members) this.#join(member);
    this.#define(name);
    this.groups.push({ name, threshold: groupThreshold(count, members.length), members });
  }

  #quorum(name) {
    if (name !== NO_QUORUM) this.#known(name);
    this.quorums.push(name);
  }

  async #key(vkey, whose, types) {
    const key = await parseVerifier(vkey);
    if (!types.includes(key.type))
      throw new MalformedError(`a key of type ${key.type}, where ${types.join(" or ")} is due`);
    // The same key under another name is the same log, or the same witness; and a log would witness itself.
    const taken = this.#roles.find((role) => equalBytes(role.public, key.public));
    if (taken) throw new MalformedError(`this key stands above already, as that of a ${taken.whose}`);
    this.#roles.push({ public: key.public, whose });
    return key;
  }

  #define(name) {
    if (name === NO_QUORUM || this.#names.has(name)) throw new MalformedError(`the name ${name} is taken`);
    this.#names.add(name);
  }

  #join(name) {
    this.#known(name);
    if (this.#members.has(name)) {
      throw new MalformedError(`${name} is a member already; each counts once in the whole policy`);
    }
    this.#members.add(name);
  }

  #known(name) {
    if (!this.#names.has(name)) throw new MalformedError(`no witness or group ${name} above`);
  }
}

function policyStatements(raw) {
  if (raw.length > MAX_POLICY_BYTES) throw new MalformedError(`a trust policy has at most ${MAX_POLICY_BYTES} bytes`);
  if (raw.some((byte) => (byte < 32 && byte !== 9 && byte !== 10) || byte === 127)) {
    throw new MalformedError("a trust policy has no control characters but tab and newline");
  }
  const lines = splitBytes(raw, [10]);
  // A file cut short could ask for another quorum than was meant.
  if (lines.pop().length > 0) {
    throw new MalformedError("the last line of a trust policy does not end in a newline; is the file whole?");
  }
  const statements = lines.map((line, place) => [place + 1, splitBytes(line, [9, 32]).map(policyWord).filter(Boolean)]);
  return statements.filter(([, words]) => words.length > 0 && !words[0].startsWith("#"));
}

function policyWord(raw) {
  try {
    return decodeText(raw, "a word");
  } catch {
    return Array.from(raw, escapeByte).join("");
  }
}

function escapeByte(byte) {
  return String.fromCharCode(byte < 128 ? byte : 0xdc00 + byte);
}

function splitBytes(raw, separators) {
  const parts = [];
  let start = 0;
  for (let place = 0; place <= raw.length; place += 1) {
    if (place < raw.length && !separators.includes(raw[place])) continue;
    parts.push(raw.subarray(start, place));
    start = place + 1;
  }
  return parts;
}

function groupThreshold(count, members) {
  if (count === "any" || count === "all") return count === "any" ? 1 : members;
  const threshold = parseDecimal(count);
  if (threshold < 1n || threshold > BigInt(members))
    throw new MalformedError(`${threshold} of ${members} members cannot be`);
  return Number(threshold);
}
