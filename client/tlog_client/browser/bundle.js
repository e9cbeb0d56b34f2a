// Evidence bundles: what one proves, and the report of it, as `tlog-client verify` says it (spec/bundle.md).

import { decodeBase64, decodeText, encodeBase64, encodeHex } from "./bytes.js";
import { parseHead } from "./checkpoint.js";
import { MalformedError, RefusedError } from "./errors.js";
import { HASH_BYTES, sha256 } from "./hashes.js";
import { canonicalText, exactMembers, isJsonObject, numberMember, parseJson, textMember } from "./json.js";
import { parseNote } from "./note.js";
import { readRows } from "./part.js";
import { atPlace, atPlaceLater } from "./place.js";
import { openWitnessed, parsePolicy } from "./policy.js";
import { verifySubset } from "./subset.js";
import { parseZip, verifyCrc } from "./zip.js";

const MANIFEST = "manifest.json";
const POLICY_FILE = "trust.policy";
const PAGE_FILE = "verify.html";
const PART_FILES = ["checkpoint", "proof", "entries.ndjson", "events.ndjson", "openings.ndjson"];
const RESERVED = ["control", "access"];
const BUNDLE_COMMENT = "tlog/bundle/v1 ";
const SEARCH_TERMS = ["action", "actor", "before", "outcome", "q", "since", "source", "start", "target", "until"];
const MAX_MANIFEST_BYTES = 1 << 20;
const SEGMENTS = "/segments/";
const END_OF_CALENDAR = 253_402_300_800_000;

/**
 * Return what a bundle proves: { manifest, parts, policy, contents }; raise MalformedError or RefusedError, with its `place`.
 *
 * `trust` is the trust policy of who verifies, or null to believe the one in the bundle, which proves only that it fits
 * together. `tick` is called now and then with how much of the work is done, from 0 to 1, and waited for.
 */
export async function verifyBundle(raw, trust = null, tick = async () => {}) {
  const { members, comment } = atPlace("the zip", () => parseZip(raw));
  const manifest = await readManifest(members, comment);
  // Hashed meanwhile, and asked for at the end.
  const changed = changedFiles(members, manifest);
  try {
    return await verifyMembers({ raw, members, manifest, changed, trust, tick });
  } catch (error) {
    throw blamed(error, await changed);
  }
}

async function verifyMembers({ raw, members, manifest, changed, trust, tick }) {
  const contents = new Map(members.map(({ name, content }) => [name, content]));
  const stated = await atPlaceLater(POLICY_FILE, () => parsePolicy(contents.get(POLICY_FILE)));
  const progress = { done: 0, all: raw.length, tick };
  const parts = [];
  for (const name of partNames([...contents.keys()])) {
    parts.push(await verifyBundlePart(partOf(name, contents), trust, stated, progress));
  }
  atPlace(MANIFEST, () => {
    verifyPartOrigins(manifest.origin, parts);
    for (const part of parts.slice(1)) verifyLooked(manifest.reserved.find(({ name }) => name === part.name)?.looked, part);
    if (manifest.asked.search === undefined) verifyWholeRange(parts[0].indexes, manifest.asked);
  });
  for (const name of await changed) atPlace(name, () => refuseForm("it is not the file that the manifest has"));
  for (const member of members) atPlace(member.name, () => verifyCrc(member));
  await tick(1);
  return { manifest, parts, policy: trust ?? stated, contents };
}

// Where a file of a part is not as it was, that is what is wrong, wherever in the part it comes up.
function blamed(error, changed) {
  const [file, ...line] = (error.place ?? "").split(", ");
  const [part] = file.split("/");
  const guilty = [...changed].find((name) => file.includes("/") && name.startsWith(`${part}/`));
  if (guilty !== undefined) error.place = [guilty, ...line].join(", ");
  return error;
}

/** Return the report of a bundle that holds, { facts, checks, notes }, by the table of checks and clauses. */
export function reportOf(bundle, table) {
  const details = new Map(reportDetails(bundle));
  const checks = table.checks.filter(({ id }) => details.has(id));
  return {
    facts: reportFacts(bundle),
    checks: checks.map(({ id, title, clauses }) => ({ title, detail: details.get(id), clauses })),
    notes: reportNotes(bundle).map((name) => table.notes[name]),
  };
}

/** Return a report as text, as `tlog-client verify` prints it. */
export function reportText({ facts, checks, notes }) {
  const lines = facts.map(([label, value]) => `${`${label}:`.padEnd(15)} ${value}`);
  lines.push("checked:");
  for (const { title, detail, clauses } of checks) lines.push(`  ${title}: ${detail}`, `    ${clauses.join("; ")}`);
  return [...lines, ...notes.map((note) => `note: ${note}`), ""].join("\n");
}

async function readManifest(members, comment) {
  const names = members.slice(1).map(({ name }) => name);
  const due = [POLICY_FILE, ...partNames(names).flatMap((part) => PART_FILES.map((file) => `${part}/${file}`)), PAGE_FILE];
  const manifest = await atPlaceLater(MANIFEST, async () => {
    const { name, content } = members[0];
    if (name !== MANIFEST) refuseForm("it is not the first member of the zip");
    if (`${BUNDLE_COMMENT}${encodeHex(await sha256(content))}` !== comment) {
      refuseForm("it, or the comment of the zip, is not as it was: their hashes differ");
    }
    return parseManifest(content);
  });
  for (const [place, name] of due.entries()) {
    if (names[place] !== name || manifest.files[place]?.name !== name) {
      atPlace(name, () => refuseForm("it is not in its place, in the zip or in the manifest"));
    }
  }
  if (names.length !== due.length || manifest.files.length !== due.length) {
    atPlace("the zip", () => refuseForm("there are members that no bundle has"));
  }
  return manifest;
}

/** Return the manifest in bytes; MalformedError unless it is exactly a manifest's only form. */
export function parseManifest(raw) {
  if (raw.length > MAX_MANIFEST_BYTES) refuseForm(`a manifest has at most ${MAX_MANIFEST_BYTES} bytes`);
  const members = parseJson(raw);
  if (!isJsonObject(members) || members.v !== 1) refuseForm("not a manifest of version 1");
  exactMembers(members, ["asked", "at", "by", "files", "origin", "reserved", "tool", "v"]);
  if (canonicalText(members) !== decodeText(raw, "a manifest")) refuseForm("the manifest is not canonical");
  if (!Array.isArray(members.files)) refuseForm("files is not a list");
  return {
    asked: askedOf(members.asked),
    at: numberMember(members, "at"),
    by: wordsOf(members, "by"),
    files: members.files.map((file) => {
      exactMembers(file, ["name", "sha256", "size"]);
      return { name: textMember(file, "name"), sha256: textMember(file, "sha256"), size: numberMember(file, "size") };
    }),
    origin: textMember(members, "origin"),
    reserved: reservedOf(members.reserved, textMember(members, "origin")),
    tool: wordsOf(members, "tool"),
  };
}

function askedOf(asked) {
  if (isJsonObject(asked) && "search" in asked) {
    exactMembers(asked, ["search"]);
    const terms = isJsonObject(asked.search) ? Object.entries(asked.search) : [];
    if (terms.length === 0 || terms.some(([name]) => !SEARCH_TERMS.includes(name))) {
      refuseForm("what was searched for is none of the parameters of a search");
    }
    if (terms.some(([, value]) => typeof value !== "string" && !Number.isSafeInteger(value))) {
      refuseForm("a parameter of the search is neither a text nor a number");
    }
    return { search: Object.fromEntries(terms) };
  }
  const { start, end } = rangeOf(asked);
  if (start === end) refuseForm("a range has at least one entry");
  return { start, end };
}

function rangeOf(range) {
  exactMembers(range, ["end", "start"]);
  const [start, end] = [numberMember(range, "start"), numberMember(range, "end")];
  if (start > end) refuseForm("a range ends before it starts");
  return { start, end };
}

// The reserved segments beside this one, which may be one of them, and what of each was looked through, up to its end, or null.
function reservedOf(reserved, origin) {
  const due = RESERVED.filter((name) => !origin.endsWith(`${SEGMENTS}${name}`));
  exactMembers(reserved, due);
  return due.map((name) => ({ name, looked: reserved[name] === null ? null : rangeOf(reserved[name]) }));
}

function wordsOf(members, name) {
  const words = textMember(members, name);
  if ([...words].length > 255) refuseForm(`${name} has at most 255 characters`);
  return words;
}

// The names of files that are not as the manifest has them, in their order.
async function changedFiles(members, manifest) {
  const hashes = await Promise.all(members.slice(1).map(({ content }) => sha256(content)));
  const isChanged = ({ sha256: due, size }, place) =>
    size !== members[place + 1].content.length || due !== encodeHex(hashes[place]);
  return new Set(manifest.files.filter(isChanged).map(({ name }) => name));
}

function partNames(names) {
  return ["segment", ...RESERVED.filter((part) => names.includes(`${part}/${PART_FILES[0]}`))];
}

function partOf(name, contents) {
  const [checkpoint, proof, entries, events, openings] = PART_FILES.map((file) => contents.get(`${name}/${file}`));
  return { name, checkpoint, proof, entries, events, openings };
}

async function verifyBundlePart(part, trust, stated, progress) {
  const { head, keys, isOwn, quorum } = await atPlaceLater(`${part.name}/checkpoint`, async () => {
    const { origin } = parseHead(parseNote(part.checkpoint).text);
    const of = (policy) => policy.logs.map((log) => log.key).filter((key) => key.name === origin);
    const own = trust !== null && (part.name === "segment" || of(trust).length > 0);
    const policy = own ? trust : stated;
    return { head: await openWitnessed(part.checkpoint, policy), keys: of(policy), isOwn: own, quorum: policy.quorum };
  });
  const proof = atPlace(`${part.name}/proof`, () => proofLines(part.proof));
  const { indexes, leaves, times } = await readRows(part, head.origin, progress);
  atPlace(`${part.name}/proof`, () => verifySubset({ indexes, leaves, size: head.size, proof, root: head.root }));
  return { name: part.name, head, keys, quorum, isOwn, indexes, firstTime: times[0], lastTime: times.at(-1) };
}

function proofLines(raw) {
  const lines = decodeText(raw, "a proof").split("\n");
  if (lines.pop() !== "") refuseForm("the last line does not end in a newline");
  return lines.map((line) => decodeBase64(line, HASH_BYTES));
}

function verifyWholeRange(indexes, { start, end }) {
  const wrong = indexes.findIndex((index, place) => index !== start + place);
  if (wrong >= 0 || indexes.length !== end - start) {
    const place = wrong >= 0 ? start + wrong : start + Math.min(indexes.length, end - start);
    refuseProof(`of the range from ${start} to before ${end} entry ${place} is not where it is due`);
  }
}

function verifyPartOrigins(origin, parts) {
  const log = origin.slice(0, Math.max(origin.lastIndexOf(SEGMENTS), 0));
  for (const { name, head } of parts) {
    const due = name === "segment" ? origin : `${log}${SEGMENTS}${name}`;
    if (head.origin !== due) refuseProof(`${name} is of ${head.origin}, not of ${due}`);
  }
}

function verifyLooked(looked, { name, head: { size }, indexes: [first] }) {
  if (!looked) refuseProof(`${name} was not looked through, and is there`);
  if (BigInt(looked.end) !== size || first < looked.start) {
    const told = `was looked through from ${looked.start} to before ${looked.end}`;
    refuseProof(`${name} ${told}, but it has ${size} entries, and entry ${first} is there`);
  }
}

function reportFacts({ manifest, parts }) {
  const [part] = parts;
  const { size, root } = part.head;
  return [
    ["Segment", manifest.origin],
    ["Exported", exportedText(manifest.asked, part.indexes.length)],
    ["Logged", `${timeText(part.firstTime)} to ${timeText(part.lastTime)}`],
    ["Key of the log", part.keys.map(({ vkey }) => vkey).join(" ")],
    ["Head", `${size} entries, root ${encodeBase64(root)}`],
    ["Cosigned by", cosignedText(part.head) || "nobody whom this trust policy knows"],
    ...manifest.reserved.map(({ name, looked }) => [`Of ${name}`, lookedText(looked, parts.find((one) => one.name === name))]),
    ["Exported by", manifest.by],
    ["Exported at", timeText(manifest.at)],
    ["Exported with", manifest.tool],
  ];
}

function reportDetails({ manifest, parts }) {
  const [{ head, indexes, quorum }, ...others] = parts;
  const details = [["signature", manifest.origin]];
  if (head.time !== null) details.push(["quorum", `${quorum}, by ${timeText(1000n * head.time)}`]);
  details.push(["inclusion", `${indexes.length} of ${head.size}`], ["commitment", String(indexes.length)]);
  const { start, end } = manifest.asked;
  if (start !== undefined) details.push(["complete", `${start} to ${end - 1}`]);
  for (const one of others) {
    const { looked } = manifest.reserved.find(({ name }) => name === one.name);
    details.push([one.name, `${lookedText(looked, one)}; the last of ${timeText(one.lastTime)}`]);
  }
  return [...details, ["bytes", String(manifest.files.length + 1)]];
}

function reportNotes({ manifest, parts }) {
  return [
    "claims",
    ...(manifest.asked.search ? ["search"] : []),
    ...(manifest.reserved.some(({ looked }) => looked !== null) ? ["parts"] : []),
    ...(manifest.reserved.some(({ looked }) => looked === null || looked.start > 0) ? ["omitted"] : []),
    ...(parts[0].isOwn ? [] : ["unpinned"]),
    ...(parts[0].isOwn && parts.some(({ isOwn }) => !isOwn) ? ["stated"] : []),
    "clauses",
  ];
}

function exportedText({ start, end, search }, count) {
  if (search === undefined) return `entries ${start} to ${end - 1}`;
  const terms = Object.keys(search).sort().map((name) => `${name}=${search[name]}`);
  return `${count} entries, found by ${terms.join(", ")}`;
}

function lookedText(looked, part) {
  if (looked === null) return "not looked through";
  const { start, end } = looked;
  const told = start < end ? `${part?.indexes.length ?? 0} of the entries ${start} to ${end - 1}` : "no entries";
  return start > 0 ? `${told}; those before ${start} were not looked through` : told;
}

function cosignedText({ cosigned }) {
  return cosigned.map(([name, time]) => `${name} ${timeText(1000n * time)}`).join(", ");
}

function timeText(milliseconds) {
  return milliseconds < END_OF_CALENDAR ? new Date(Number(milliseconds)).toISOString() : `${milliseconds} ms`;
}

function refuseForm(message) {
  throw new MalformedError(message);
}

function refuseProof(message) {
  throw new RefusedError(message, "bundle");
}
