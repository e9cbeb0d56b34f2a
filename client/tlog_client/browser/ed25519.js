// Ed25519 (RFC 8032) by WebCrypto, and by @noble/ed25519, which stands beside this, where a browser has it not.

import { concatBytes } from "./bytes.js";
import * as noble from "./noble-ed25519.js";

const FIELD_PRIME = 2n ** 255n - 19n;
const ORDER_8_Y = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
const SMALL_ORDER_Y = [0n, 1n, FIELD_PRIME - 1n, ORDER_8_Y, FIELD_PRIME - ORDER_8_Y];

/** Say whether a public key is one that verifies forged signatures: not canonical, or of small order. */
export function isWeakKey(publicKey) {
  const y = readLittleEndian(publicKey) & (2n ** 255n - 1n);
  return y >= FIELD_PRIME || SMALL_ORDER_Y.includes(y);
}

/** Say whether `signature` over `message` is by `publicKey`, which is not weak. */
export async function isEd25519(signature, message, publicKey) {
  if (signature.length !== 64) return false;
  const key = await importKey(publicKey);
  if (key === "unsupported") return isEd25519ByNoble(signature, message, publicKey);
  return key !== "no point" && crypto.subtle.verify("Ed25519", key, signature, message);
}

/** The same without WebCrypto's Ed25519. */
export async function isEd25519ByNoble(signature, message, publicKey) {
  if (!(await noble.verifyAsync(signature, message, publicKey, { zip215: false }))) return false;
  // noble multiplies both sides by 8, and so takes signatures that WebCrypto and OpenSSL refuse.
  const [r, s] = [signature.subarray(0, 32), signature.subarray(32)];
  const digest = await crypto.subtle.digest("SHA-512", concatBytes(r, publicKey, message));
  const challenge = readLittleEndian(new Uint8Array(digest)) % noble.Point.CURVE().n;
  const key = noble.Point.fromBytes(publicKey).multiply(challenge, false);
  return noble.Point.BASE.multiply(readLittleEndian(s), false).equals(noble.Point.fromBytes(r).add(key));
}

async function importKey(publicKey) {
  try {
    return await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  } catch (error) {
    return error.name === "NotSupportedError" ? "unsupported" : "no point";
  }
}

function readLittleEndian(data) {
  return data.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
}
