// Text forms of bytes and numbers. Each has one form: what is read is formatted again and compared.

import { MalformedError } from "./errors.js";

export const MAX_INTEGER = 2n ** 63n - 1n;

export function encodeText(text) {
  return new TextEncoder().encode(text);
}

/** Return the text of UTF-8 bytes, a byte order mark included; MalformedError names what they should be. */
export function decodeText(raw, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  } catch {
    throw new MalformedError(`${what} is UTF-8`);
  }
}

export function encodeBase64(data) {
  let binary = "";
  for (const byte of data) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** Return the bytes of canonical base64; MalformedError for any other, or another length in bytes. */
export function decodeBase64(text, length) {
  let data;
  try {
    data = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new MalformedError("not base64");
  }
  if (encodeBase64(data) !== text) throw new MalformedError("base64 is not canonical");
  if (length !== undefined && data.length !== length) {
    throw new MalformedError(`expected ${length} bytes of base64, not ${data.length}`);
  }
  return data;
}

export function encodeHex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return the bytes of lower-case hex; raise MalformedError. */
export function decodeHex(text) {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) throw new MalformedError("not hex in lower case");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** Return the number, a BigInt, of an ASCII decimal: no sign, no leading zero, at most 2^63-1; raise MalformedError. */
export function parseDecimal(text) {
  const number = /^(?:0|[1-9][0-9]{0,18})$/.test(text) ? BigInt(text) : MAX_INTEGER + 1n;
  if (number > MAX_INTEGER) {
    throw new MalformedError("expected a decimal number without sign or leading zeros, below 2^63");
  }
  return number;
}

export function concatBytes(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

export function equalBytes(one, other) {
  if (one.length !== other.length) return false;
  for (let place = 0; place < one.length; place += 1) if (one[place] !== other[place]) return false;
  return true;
}

/** Return the big-endian number, a BigInt, that the bytes are. */
export function readBigEndian(data) {
  return data.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
}
