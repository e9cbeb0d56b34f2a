// Commitments: how an entry binds its payload without showing it (spec/entry.md).

import { encodeBase64, encodeText, equalBytes } from "./bytes.js";
import { MalformedError, RefusedError } from "./errors.js";
import { sha256 } from "./hashes.js";

export const OPENING_BYTES = 32;

/** Return the commitment to a payload of this media type; raise MalformedError. */
export async function commit({ opening, payloadType, payload }) {
  if (opening.length !== OPENING_BYTES) throw new MalformedError("an opening has 32 bytes");
  if (!/^[\0-\x7f]{1,255}$/.test(payloadType)) throw new MalformedError("a media type is 1 to 255 characters of ASCII");
  const framed = [payloadType.length >> 8, payloadType.length & 255];
  return sha256(encodeText("tlog/commitment/v1\n"), opening, framed, encodeText(payloadType), payload);
}

/** Check that a payload is the one committed to; raise RefusedError, or MalformedError as `commit` does. */
export async function verifyCommitment(commitment, { opening, payloadType, payload }) {
  const computed = await commit({ opening, payloadType, payload });
  if (!equalBytes(computed, commitment)) {
    throw new RefusedError(
      `the payload is not the one that the entry commits to: it makes ${encodeBase64(computed)}, the entry has ${encodeBase64(commitment)}`,
      "commitment",
    );
  }
}
