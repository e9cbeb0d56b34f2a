// The zip of an evidence bundle in its one form (spec/bundle.md, "The zip").

import { encodeText } from "./bytes.js";
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
  if (!isSame(rest, due)) {
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
    if (found.end > raw.length || !isSame(raw.subarray(start, start + header.length), header)) {
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

function isSame(one, other) {
  return one.length === other.length && one.every((byte, place) => byte === other[place]);
}

function viewOf(raw) {
  return new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
}

// Eight bytes a step, each by a table of its own.
export function crc32(data) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES;
  let [crc, place] = [-1, 0];
  for (; place + 8 <= data.length; place += 8) {
    const low = crc ^ (data[place] | (data[place + 1] << 8) | (data[place + 2] << 16) | (data[place + 3] << 24));
    crc =
      t7[low & 255] ^
      t6[(low >>> 8) & 255] ^
      t5[(low >>> 16) & 255] ^
      t4[low >>> 24] ^
      t3[data[place + 4]] ^
      t2[data[place + 5]] ^
      t1[data[place + 6]] ^
      t0[data[place + 7]];
  }
  for (; place < data.length; place += 1) crc = t0[(crc ^ data[place]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function crcTables() {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256));
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    tables[0][byte] = crc;
  }
  for (let number = 1; number < 8; number += 1) {
    for (let byte = 0; byte < 256; byte += 1) {
      const before = tables[number - 1][byte];
      tables[number][byte] = tables[0][before & 255] ^ (before >>> 8);
    }
  }
  return tables;
}
