// The zip of an evidence bundle in its one form (spec/bundle.md, "The zip").

import { encodeText, equalBytes } from "./bytes.js";
import { MalformedError } from "./errors.js";
import { atPlace } from "./place.js";

export const MAX_BUNDLE_BYTES = 512 * 2 ** 20;

// As many as a bundle of three parts has: of more nobody is to read the headers first.
const MAX_MEMBERS = 18;
const LOCAL_SIGNATURE = 0x04034b50;
const CENTRAL_SIGNATURE = 0x02014b50;
const END_SIGNATURE = 0x06054b50;
const HEADER_BYTES = 30;
const MEMBER_NAME = /^(?:[a-z]+\/)?[a-z]+(?:\.[a-z]+)?$/;
const CRC_STEP = 16;
const CRC_TABLES = crcTables();

/**
 * Return { members, comment } of a zip, each member { name, content, crc }; MalformedError unless it has the one form.
 *
 * Contents are parts of `raw`, and not compared with their CRC-32: see `verifyCrc`.
 */
export function parseZip(raw) {
  if (raw.length > MAX_BUNDLE_BYTES) throw new MalformedError(`a bundle has at most ${MAX_BUNDLE_BYTES} bytes`);
  const members = [];
  let start = 0;
  while (members.length === 0 || (members.length < MAX_MEMBERS && isMember(raw, start))) {
    members.push(readMember(raw, start));
    start = members.at(-1).end;
  }
  const empty = zipDirectory(members, start, "");
  const comment = String.fromCharCode(...raw.subarray(start + empty.length, start + empty.length + 0xffff));
  const due = zipDirectory(members, start, comment);
  const rest = raw.subarray(start);
  if (!equalBytes(rest, due)) {
    const place = rest.findIndex((byte, at) => byte !== due[at]);
    atPlace("the directory of the zip", () => {
      throw new MalformedError(`from byte ${start + (place < 0 ? rest.length : place)} on it is not as the members before it demand`);
    });
  }
  return { members, comment };
}

/** Check the content of a member against the CRC-32 of its header; raise MalformedError. */
export function verifyCrc({ content, crc }) {
  if (crc32(content) !== crc) throw new MalformedError("the CRC-32 in its header is not that of the file");
}

function isMember(raw, start) {
  return start + 4 <= raw.length && viewOf(raw).getUint32(start, true) === LOCAL_SIGNATURE;
}

function readMember(raw, start) {
  const view = viewOf(raw);
  const found = atPlace("the headers of the zip", () => {
    if (raw.length < start + HEADER_BYTES) throw new MalformedError(`at byte ${start} is no member`);
    const nameLength = Math.min(view.getUint16(start + 26, true), 255);
    const name = String.fromCharCode(...raw.subarray(start + HEADER_BYTES, start + HEADER_BYTES + nameLength));
    if (!MEMBER_NAME.test(name)) throw new MalformedError(`at byte ${start} is no member that a bundle has`);
    const [from, size] = [start + HEADER_BYTES + nameLength, view.getUint32(start + 18, true)];
    return { name, content: raw.subarray(from, from + size), crc: view.getUint32(start + 14, true), start, end: from + size };
  });
  atPlace(found.name, () => {
    const header = zipHeader(found);
    if (found.end > raw.length || !equalBytes(raw.subarray(start, start + header.length), header)) {
      throw new MalformedError("its header in the zip is not as a bundle has it");
    }
  });
  return found;
}

function zipHeader({ name, content, crc }) {
  const length = name.length;
  return packed([4, LOCAL_SIGNATURE], [2, 20], [2, 0], [2, 0], [2, 0], [2, 33], ...sized(crc, content), [2, length], [2, 0], name);
}

function zipDirectory(members, start, comment) {
  const fields = [];
  for (const { name, content, crc, start: at } of members) {
    const times = [[2, 20], [2, 20], [2, 0], [2, 0], [2, 0], [2, 33]];
    const rest = [[2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, at]];
    fields.push([4, CENTRAL_SIGNATURE], ...times, ...sized(crc, content), [2, name.length], ...rest, name);
  }
  const length = packed(...fields).length;
  const counts = [[2, 0], [2, 0], [2, members.length], [2, members.length]];
  return packed(...fields, [4, END_SIGNATURE], ...counts, [4, length], [4, start], [2, comment.length], comment);
}

function sized(crc, { length }) {
  return [[4, crc], [4, length], [4, length]];
}

// Each field is a text in ASCII, or how many bytes a number has, the lowest first, and the number.
function packed(...fields) {
  const bytes = [];
  for (const field of fields) {
    if (typeof field === "string") for (const byte of encodeText(field)) bytes.push(byte);
    else for (let place = 0; place < field[0]; place += 1) bytes.push(Math.floor(field[1] / 2 ** (8 * place)) & 255);
  }
  return Uint8Array.from(bytes);
}

function viewOf(raw) {
  return new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
}

// Sixteen bytes a step, each by a table of its own, 256 numbers behind the one before.
export function crc32(data) {
  const view = viewOf(data);
  let [crc, place] = [-1, 0];
  for (; place + CRC_STEP <= data.length; place += CRC_STEP) {
    crc =
      crcOfFour(crc ^ view.getInt32(place, true), 12) ^
      crcOfFour(view.getInt32(place + 4, true), 8) ^
      crcOfFour(view.getInt32(place + 8, true), 4) ^
      crcOfFour(view.getInt32(place + 12, true), 0);
  }
  for (; place < data.length; place += 1) crc = CRC_TABLES[(crc ^ data[place]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// Of four bytes, the first the lowest, which so many come behind.
function crcOfFour(bits, behind) {
  const table = behind << 8;
  return (
    CRC_TABLES[(table + 768) | (bits & 255)] ^
    CRC_TABLES[(table + 512) | ((bits >>> 8) & 255)] ^
    CRC_TABLES[(table + 256) | ((bits >>> 16) & 255)] ^
    CRC_TABLES[table | (bits >>> 24)]
  );
}

function crcTables() {
  const tables = new Int32Array(CRC_STEP << 8);
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    tables[byte] = crc;
  }
  for (let place = 256; place < tables.length; place += 1) {
    const before = tables[place - 256];
    tables[place] = tables[before & 255] ^ (before >>> 8);
  }
  return tables;
}
